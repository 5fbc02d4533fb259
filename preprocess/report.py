"""The report of a finished split, `.records/report.json`: what ran where, how long, and what went wrong on the way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..shards.format.sample import DatasetInfo, Reject
from .effort import Effort


def report_of(
    info: DatasetInfo,
    counts: Mapping[str, int],
    efforts: Sequence[Effort],
    rejects: Sequence[Reject],
    libraries: Mapping[str, str],
) -> dict[str, Any]:
    """The report as JSON. It is made from the efforts in the records, so those of all machines and runs count, except
    what a killed task had done.

    wall_s is the time from the begin of the first task to the end of the last one, also if nothing ran in between;
    busy_s is the sum over the tasks, cpu_s that of processor time.
    """
    sources = int(info.settings["sources"])
    times: dict[str, Any] = {}
    if efforts:
        began_s = min(one.began_s for one in efforts)
        wall_s = max(one.began_s + one.wall_s for one in efforts) - began_s
        cpu_s = sum(one.cpu_s for one in efforts)
        times = {
            "began": _utc(began_s),
            "ended": _utc(began_s + wall_s),
            "wall_s": round(wall_s, 3),
            "busy_s": round(sum(one.wall_s for one in efforts), 3),
            "cpu_s": round(cpu_s, 3),
            "sources_per_s": round(sources / max(wall_s, 1e-3), 3),
            "cpu_s_per_source": round(cpu_s / max(sources, 1), 4),
        }
    return {
        "dataset": info.dataset,
        "split": info.split,
        "profile": info.profile,
        "sources": sources,
        "counts": dict(counts),
        "rejects": dict(sorted(Counter(reject.stage for reject in rejects).items())),
        **times,
        "retries": sum(one.retries for one in efforts),
        "restarts": sum(one.restarts for one in efforts),
        "machines": _machines(efforts),
        "libraries": dict(libraries),
    }


def _machines(efforts: Sequence[Effort]) -> dict[str, dict[str, float]]:
    """The number of shards and the processor time by machine."""
    own: defaultdict[str, list[Effort]] = defaultdict(list)
    for one in efforts:
        own[one.machine].append(one)
    return {
        name: {"shards": len(some), "cpu_s": round(sum(one.cpu_s for one in some), 3)}
        for name, some in sorted(own.items())
    }


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
