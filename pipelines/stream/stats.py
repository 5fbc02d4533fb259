"""Statistics of a loader: seconds per stage, bytes read, samples created and samples replaced."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .topology import default_threads

SAMPLE_STAGES = ("read", "decode", "convert", "flow", "mask")
"""Stages of a sample, run in the threads that create samples."""
BATCH_STAGES = ("collate", "copy", "finish")
"""Stages of a batch: joining samples, starting the copy to the device, and the device transform."""
WAITS = ("wait", "consumer")
""""wait": the consumer waits for a batch. "consumer": the loader waits until the consumer requests the next one."""
STAGES = (*SAMPLE_STAGES, *BATCH_STAGES, *WAITS)


def _make_zeros() -> defaultdict[str, float]:
    return defaultdict(float)


@dataclass(kw_only=True, slots=True)
class Stats:
    """Counts and times of a sample, a batch or a loader; they can be added.

    Attributes:
        samples: Samples created.
        read_bytes: Bytes read.
        bad: Unusable samples that were replaced.
        short: Samples whose video has too few frames for the clip.
        restarts: Worker processes that died or stopped responding and were replaced.
        cuts: Scene cuts in clips.
        flow_cells: Cells of optical flow.
        valid_cells: Flow cells in which the source had a vector.
        judged_cells: Flow cells whose confidence was computed.
        confidence: Sum of their confidence.
        row_tokens: Capacity of packed rows in visible tokens.
        visible_tokens: Visible tokens in packed rows.
        seconds: Wall time per stage, summed over the threads of all workers; "wait" and "consumer" are times of the
            consuming thread.
        cpu_seconds: CPU time per stage. It is below the wall time if threads wait for a disk, a device, a core or
            another thread.
    """

    samples: int = 0
    read_bytes: int = 0
    bad: int = 0
    short: int = 0
    restarts: int = 0
    cuts: int = 0
    flow_cells: int = 0
    valid_cells: int = 0
    judged_cells: int = 0
    confidence: float = 0.0
    row_tokens: int = 0
    visible_tokens: int = 0
    seconds: defaultdict[str, float] = field(default_factory=_make_zeros)
    cpu_seconds: defaultdict[str, float] = field(default_factory=_make_zeros)

    def stage(self, name: str) -> _Stage:
        """Time a `with` block and add it to the stage."""
        return _Stage(self, name)

    def add(self, other: Stats) -> None:
        """Add other counts and times to these."""
        self.samples += other.samples
        self.read_bytes += other.read_bytes
        self.bad += other.bad
        self.short += other.short
        self.restarts += other.restarts
        self.cuts += other.cuts
        self.flow_cells += other.flow_cells
        self.valid_cells += other.valid_cells
        self.judged_cells += other.judged_cells
        self.confidence += other.confidence
        self.row_tokens += other.row_tokens
        self.visible_tokens += other.visible_tokens
        for mine, theirs in ((self.seconds, other.seconds), (self.cpu_seconds, other.cpu_seconds)):
            for name, value in theirs.items():
                mine[name] += value

    def as_dict(self) -> dict[str, object]:
        """Return JSON-able values. Flow coverage and confidence are means over cells, or None; `empty` is the unused
        fraction of packed rows, or None without such rows.
        """
        return {
            "samples": self.samples,
            "read_bytes": self.read_bytes,
            "bad": self.bad,
            "short": self.short,
            "restarts": self.restarts,
            "cuts": self.cuts,
            "flow_coverage": round(self.valid_cells / self.flow_cells, 6) if self.flow_cells else None,
            "flow_confidence": round(self.confidence / self.judged_cells, 6) if self.judged_cells else None,
            "empty": round(1 - self.visible_tokens / self.row_tokens, 6) if self.row_tokens else None,
            "seconds": {name: round(value, 6) for name, value in sorted(self.seconds.items())},
            "cpu_seconds": {name: round(value, 6) for name, value in sorted(self.cpu_seconds.items())},
        }


class _Stage:
    """Times a `with` block. A generator would take 1 us longer, and each sample has several blocks."""

    __slots__ = ("cpu", "name", "start", "stats")

    def __init__(self, stats: Stats, name: str) -> None:
        self.stats, self.name = stats, name

    def __enter__(self) -> None:
        self.cpu, self.start = time.thread_time(), time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.stats.seconds[self.name] += time.perf_counter() - self.start
        self.stats.cpu_seconds[self.name] += time.thread_time() - self.cpu


_RARELY = 0.1  # fraction of the time: if the consumer waits less, the loader keeps up
_ALL_BUSY = 0.8  # fraction of the cores' time spent in the loader's stages
_MOSTLY = 0.5

_NAMES = {
    "read": ("Reading", "the bytes are in memory already, so fewer bytes per sample would help"),
    "decode": ("Decoding", "more cores would help"),
    "convert": ("Conversion", "more cores would help"),
    "flow": ("Flow", "codec flow, which shards of the profile train allow, costs least"),
    "mask": ("Drawing masks", "a mask that needs no content, such as random, costs least"),
    "collate": ("Joining batches", "workers join them in several processes"),
    "finish": ("Finishing batches", "the consumer's process does this, one batch at a time"),
}
"""Description of each stage of any loader, and how to make it cheaper."""


def shares(stats: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return wall_ms and cpu_ms per sample and the fraction of time of each stage, from `loader.stats()`.

    Fractions of sample and batch stages refer to the loader's thread time; "wait" and "consumer" to the consumer's
    time.
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
    """Return `loader.stats()` with the fractions of the stages and the diagnosis of `limit` for this machine;
    JSON-able.
    """
    return {**stats, "stages": shares(stats), "limit": limit(stats, default_threads(0))}


def limit(stats: Mapping[str, Any], cores: int, stages: Mapping[str, tuple[str, str]] | None = None) -> str:
    """Diagnose in one sentence what limits the speed of a loader and how to improve it.

    If the consumer hardly waits, the consumer is the bottleneck. Otherwise the loader's CPU time shows whether the
    cores are busy, and the difference between wall and CPU time shows what the threads wait for.

    Args:
        stats: Result of `loader.stats()`.
        cores: CPU cores of the machine.
        stages: Description of stages, and how to make them cheaper, where this loader differs from others.
    """
    seconds, cpu = stats["seconds"], stats["cpu_seconds"]
    wall = seconds.get("wait", 0.0) + seconds.get("consumer", 0.0)
    if wall <= 0 or not stats["samples"]:
        return "Nothing was loaded, so there is nothing to measure."
    waits = seconds.get("wait", 0.0) / wall
    if waits < _RARELY:
        return f"The consumer limits: it waits for data {waits:.0%} of the time, so the loader keeps up."
    spent = {name: (seconds.get(name, 0.0), cpu.get(name, 0.0)) for name in _NAMES}
    names = {**_NAMES, **(stages or {})}
    words = _describe_loader(spent, wall, int(stats["threads"]), cores, names)
    return f"{words} (The consumer waits {waits:.0%} of the time.)"


def _describe_loader(
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
    read, waited = stages["read"][0], _measure_wait_for_bytes(stages)
    if read >= _MOSTLY * spent and waited >= _MOSTLY * read:
        return (
            f"Reading limits: threads wait for the disk or the network {waited / spent:.0%} of their time; "
            "more threads, a faster disk or a cache would help."
        )
    if spent < _MOSTLY * threads * wall:
        longest = max(("collate", "finish"), key=lambda name: stages[name][0])
        if (took := stages[longest][0]) >= _MOSTLY * wall:
            return f"{names[longest][0]} limits: it takes {took / wall:.0%} of the time; {names[longest][1]}."
        idle = 1 - spent / (threads * wall)
        return f"The threads are idle {idle:.0%} of the time: raise prefetch, or use fewer of them with more workers."
    running = sum(stages[name][1] for name in SAMPLE_STAGES) / spent
    if running < 1 - _MOSTLY / 2:
        return (
            f"Other work limits: the loader's threads get a core {running:.0%} of the time that they need one; other "
            "processes, the consumer's computation, or more threads than cores take the rest."
        )
    if threads < cores:
        return (
            f"The number of threads limits: {threads} for {cores} cores; threads={cores}, or workers, would use "
            f"all of them. {what} takes most of their time."
        )
    return f"{what} limits: it is {most / worked:.0%} of the loader's processor time; {remedy}."


def _measure_wait_for_bytes(stages: Mapping[str, tuple[float, float]]) -> float:
    """Estimate the seconds spent waiting for data: wall time minus CPU time of reading, corrected for waits for a core.

    The other sample stages do not wait for data, so they show how often a thread waits for a core.
    """
    others = [stages[name] for name in SAMPLE_STAGES if name != "read"]
    wall, cpu = (sum(column) for column in zip(*others, strict=True))
    running = min(cpu / wall, 1.0) if wall and cpu else 1.0
    read, read_cpu = stages["read"]
    return max(read - read_cpu / running, 0.0)
