"""What holds a loader up: the shares of its stages, and one sentence that names what limits it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .stats import BATCH_STAGES, SAMPLE_STAGES, WAITS
from .topology import default_threads

_RARELY = 0.1  # of the time: a consumer that waits less has a loader that keeps up
_ALL_BUSY = 0.8  # of the cores' time, spent in the loader's own stages
_MOSTLY = 0.5

_NAMES = {
    "read": ("Reading", "what is read is in memory already, so fewer bytes a sample would help"),
    "decode": ("Decoding", "more cores would help"),
    "convert": ("Conversion", "more cores would help"),
    "flow": ("Flow", "codec flow, which shards of the profile train allow, costs least"),
    "mask": ("Drawing masks", "a mask that follows nothing of the sample, such as random, costs least"),
    "collate": ("Joining batches", "with workers they are joined in several processes"),
}
"""What the stages of any loader do, and what would make them cheaper."""


def shares(stats: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Of `loader.stats()`, per stage: wall_ms and cpu_ms per sample, and its share.

    The stages of samples and batches share the time of the loader's threads; "wait" and "consumer" share the
    consumer's.
    """
    seconds, cpu = stats["seconds"], stats["cpu_seconds"]
    samples = max(stats["samples"], 1)
    rows: dict[str, dict[str, float]] = {}
    known = {*SAMPLE_STAGES, *BATCH_STAGES, *WAITS}
    others = tuple(name for name in seconds if name not in known)
    for group in ((*SAMPLE_STAGES, *others, *BATCH_STAGES), WAITS):
        total = sum(seconds.get(name, 0.0) for name in group)
        for name in group:
            if name in seconds:
                rows[name] = {
                    "wall_ms": round(seconds[name] / samples * 1e3, 3),
                    "cpu_ms": round(cpu.get(name, 0.0) / samples * 1e3, 3),
                    "share": round(seconds[name] / total, 4) if total else 0.0,
                }
    return rows


def summary(stats: Mapping[str, Any]) -> dict[str, Any]:
    """`loader.stats()` with the shares of the stages and the sentence about what limited them here; JSON-able."""
    return {**stats, "stages": shares(stats), "limit": limit(stats, default_threads(0))}


def limit(stats: Mapping[str, Any], cores: int, stages: Mapping[str, tuple[str, str]] | None = None) -> str:
    """One sentence about `loader.stats()` on a machine of `cores` cores: what limits, and what would help.

    stages: by name, what a stage of this loader does and what would make it cheaper, where that is not what holds for
    all loaders.

    The consumer's own time decides first: a loader that it never waits for limits nothing. Else the loader's processor
    time tells whether the cores are busy with it, and the difference of wall and processor time what threads wait for.
    """
    seconds, cpu = stats["seconds"], stats["cpu_seconds"]
    wall = seconds.get("wait", 0.0) + seconds.get("consumer", 0.0)
    if wall <= 0 or not stats["samples"]:
        return "Nothing was loaded, so nothing can be said."
    waits = seconds.get("wait", 0.0) / wall
    if waits < _RARELY:
        return f"The consumer limits: it waits for data {waits:.0%} of the time, the loader keeps up."
    spent = {name: (seconds.get(name, 0.0), cpu.get(name, 0.0)) for name in _NAMES}
    names = {**_NAMES, **(stages or {})}
    words = _of_the_loader(spent, wall, int(stats["threads"]), cores, names)
    return f"{words} (The consumer waits {waits:.0%} of the time.)"


def _of_the_loader(
    stages: Mapping[str, tuple[float, float]],
    wall: float,
    threads: int,
    cores: int,
    names: Mapping[str, tuple[str, str]],
) -> str:
    worked = sum(cpu for _, cpu in stages.values())
    name, (_, most) = max(stages.items(), key=lambda stage: stage[1][1])
    what, remedy = names[name]
    if worked >= _ALL_BUSY * cores * wall:
        return (
            f"{what} limits: it is {most / worked:.0%} of the loader's processor time, and all {cores} cores are busy "
            f"with the loader; {remedy}."
        )
    spent = sum(stages[name][0] for name in SAMPLE_STAGES)
    read, waited = stages["read"][0], _waited_for_bytes(stages)
    if read >= _MOSTLY * spent and waited >= _MOSTLY * read:
        return (
            f"Reading limits: threads wait for the disk or the network {waited / spent:.0%} of their time; "
            "more threads read more at once, a faster disk or a cache would help."
        )
    collate = stages["collate"][0]
    if spent < _MOSTLY * threads * wall:
        if collate >= _MOSTLY * wall:
            return f"{names['collate'][0]} limits: it takes {collate / wall:.0%} of the time; {names['collate'][1]}."
        idle = 1 - spent / (threads * wall)
        return f"The threads are idle {idle:.0%} of the time: raise prefetch, or use fewer of them with more workers."
    running = sum(stages[name][1] for name in SAMPLE_STAGES) / spent
    if running < 1 - _MOSTLY / 2:
        return (
            f"Other work limits: the loader's threads get a core {running:.0%} of the time that they want one; other "
            "processes, the consumer's own computing, or threads beyond the number of cores take the rest."
        )
    if threads < cores:
        return (
            f"Too few threads limit: {threads} of them for {cores} cores; threads={cores}, or workers, would use all. "
            f"{what} takes most of their time."
        )
    return f"{what} limits: it is {most / worked:.0%} of the loader's processor time; {remedy}."


def _waited_for_bytes(stages: Mapping[str, tuple[float, float]]) -> float:
    """Seconds of reading in which neither a processor worked for it nor, as far as the other stages of samples tell,
    which wait for no bytes, something else had the core.
    """
    others = [stages[name] for name in SAMPLE_STAGES if name != "read"]
    wall, cpu = (sum(column) for column in zip(*others, strict=True))
    running = min(cpu / wall, 1.0) if wall and cpu else 1.0
    read, read_cpu = stages["read"]
    return max(read - read_cpu / running, 0.0)
