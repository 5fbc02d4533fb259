"""Report of a finished split, `.records/report.json`: where each task ran, how long it took, and its problems.

A split that lost many of its sources is finished only if `max_rejects` allows it (`check_rejects`).
"""

from __future__ import annotations

import socket
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from maskstream.shards.errors import DatasetError
from maskstream.shards.format.sample import DatasetInfo, Reject
from maskstream.shards.stores.output import Location


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """Cost of the last run of a task.

    Attributes:
        machine: Host name.
        began_s: Start in seconds since 1970.
        wall_s: Wall time in seconds.
        cpu_s: CPU time of all threads of its process, in seconds.
        retries: Number of pauses because a source could not be read.
        restarts: Number of processes that died running the task in the same job run.
    """

    machine: str
    began_s: float
    wall_s: float
    cpu_s: float
    retries: int = 0
    restarts: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Effort:
        return cls(**data)


class EffortClock:
    """Measures a task from now on."""

    def __init__(self) -> None:
        self.retries = 0
        self._began_s, self._wall_s, self._cpu_s = time.time(), time.monotonic(), time.process_time()

    def effort(self) -> Effort:
        """Return the effort so far."""
        return Effort(
            machine=socket.gethostname(),
            began_s=round(self._began_s, 3),
            wall_s=round(time.monotonic() - self._wall_s, 3),
            cpu_s=round(time.process_time() - self._cpu_s, 3),
            retries=self.retries,
        )


ARCHIVE = "archive"
"""Stage of a damaged archive that was read as far as possible, as requested."""
MISSING = "missing"
"""Stage of a source that the dataset's lists name but that has no file."""


def check_rejects(folder: Location, rejects: Sequence[Reject], n_listed: int, max_rejects: float) -> None:
    """Raise DatasetError if more than the fraction `max_rejects` of the `n_listed` sources was rejected.

    Missing files count too, since a folder that is not mounted looks the same. Damaged archives do not, since their
    lost contents are unknown.
    """
    rejects = [reject for reject in rejects if reject.stage != ARCHIVE]
    if len(rejects) <= max_rejects * n_listed:
        return
    n_missing = sum(reject.stage == MISSING for reject in rejects)
    common = Counter(
        f"{reject.stage}: {'there is no file' if reject.stage == MISSING else reject.reason}" for reject in rejects
    ).most_common(3)
    reasons = "; ".join(f"{reason} ({count})" for reason, count in common)
    share = len(rejects) / n_listed
    raise DatasetError(
        f"{folder}: {len(rejects)} of {n_listed} sources ({share:.1%}) cannot be used, and {n_missing} of them are "
        f"missing, but at most {max_rejects:.1%} may be unusable for the split to count as finished. Most common: "
        f"{reasons}. Fix the sources and encode them again with --retry-rejects, or accept them with --max-rejects "
        f"{_round_up(share)}, which uses what is written"
    )


def _round_up(share: float) -> float:
    """Round a fraction up to a hundredth."""
    return min(1.0, (int(share * 100) + 1) / 100)


def make_report(
    info: DatasetInfo,
    counts: Mapping[str, int],
    efforts: Sequence[Effort],
    rejects: Sequence[Reject],
    libraries: Mapping[str, str],
) -> dict[str, Any]:
    """Return the report as JSON.

    It is computed from the efforts in the records, so it covers all machines and runs, except the work of killed tasks.
    `wall_s` is the time from the first task's start to the last task's end, including idle time; `busy_s` and `cpu_s`
    are the wall and CPU times summed over tasks.
    """
    sources = int(info.settings["sources"])
    times: dict[str, Any] = {}
    if efforts:
        began_s = min(one.began_s for one in efforts)
        wall_s = max(one.began_s + one.wall_s for one in efforts) - began_s
        cpu_s = sum(one.cpu_s for one in efforts)
        times = {
            "began": _format_utc(began_s),
            "ended": _format_utc(began_s + wall_s),
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
        "machines": _count_by_machine(efforts),
        "libraries": dict(libraries),
    }


def _count_by_machine(efforts: Sequence[Effort]) -> dict[str, dict[str, float]]:
    """Return the number of shards and the CPU time by machine."""
    own: defaultdict[str, list[Effort]] = defaultdict(list)
    for one in efforts:
        own[one.machine].append(one)
    return {
        name: {"shards": len(some), "cpu_s": round(sum(one.cpu_s for one in some), 3)}
        for name, some in sorted(own.items())
    }


def _format_utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
