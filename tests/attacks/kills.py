"""Kills a job at random moments until it has finished; what it wrote must be what an undisturbed one writes.

The jobs run in forks of a warm process, so that a kill falls into the work and not into the imports.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FORKS = multiprocessing.get_context("forkserver")
_JOBS = (
    *(
        "archive_kills",
        "cache",
        "fuzz",
        "index_kills",
        "outages",
        "part_kills",
        "shard_kills",
        "sources",
        "train_kills",
    ),
    "version_kills",
)
FORKS.set_forkserver_preload([*(f"{__package__}.{name}" for name in _JOBS), "torch._dynamo", "torch.distributed.fsdp"])

MOST_KILLS = 4
"""How often a job is killed before it may finish."""

LIMIT_S = 300
GRACE_S = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job that goes on in the folder that it is given, what it has written there, and whether it looks finished."""

    run: Callable[[Path], None]
    outcome: Callable[[Path], Mapping[str, object]]
    finished: Callable[[Path], bool]


def ended(run: Callable[[Path], None], out: Path, killed_after_s: float | None = None) -> str:
    """Runs a job in a fork. "killed" if it ran for `killed_after_s`, "finished", "signal", "hang" or "foreign"."""
    process = FORKS.Process(target=in_group, args=(run, out))
    process.start()
    process.join(LIMIT_S if killed_after_s is None else killed_after_s)
    if process.exitcode is None:
        while process.exitcode is None:  # before the process has its own group, there is none to kill
            try:
                os.killpg(process.pid or 0, signal.SIGKILL)
            except ProcessLookupError:
                time.sleep(0.001)
            process.join(GRACE_S)
        return "hang" if killed_after_s is None else "killed"
    if process.exitcode == 0:
        return "finished"
    return "signal" if process.exitcode < 0 else "foreign"


def in_group(run: Callable[[Path], None], out: Path) -> None:
    """Runs a job in a group of processes of its own."""
    os.setsid()
    try:
        run(out)
    except BaseException:
        traceback.print_exc()
        sys.exit(1)


def kills(job: Job, count: int, seed: int, folder: Path) -> Counter[str]:
    """Kills the job `count` times at random moments, and lets it finish after every few kills.

    A job that looks finished when it was killed must have written all that it writes. It may also have left other
    files, which the next run removes.
    """
    for whole in (folder / "warm/out", folder / "whole/out"):
        begun = time.monotonic()
        assert ended(job.run, whole) == "finished"
        length_s = time.monotonic() - begun
    wanted = job.outcome(whole)
    rng, ends, out = np.random.default_rng(seed), Counter[str](), folder / "run/out"
    while ends.total() < count:
        number, pending, end = ends.total(), 0, "killed"
        for _ in range(min(int(rng.integers(1, MOST_KILLS + 1)), count - number)):
            end = ended(job.run, out, killed_after_s=rng.uniform(0, length_s))
            pending += end == "killed"
            if job.finished(out):
                found = job.outcome(out)
                end = end if all(found.get(name) == value for name, value in wanted.items()) else "wrong"
            if end != "killed":
                break
        if end == "killed":
            end = ended(job.run, out)
        if end == "finished":
            end = "exact" if job.outcome(out) == wanted else "wrong"
        if end != "exact":
            found = job.outcome(out) if job.finished(out) else {}
            differs = sorted(name for name in found | wanted if found.get(name) != wanted.get(name))
            print(f"{end}: seed {seed}, after kill {number + pending}: {', '.join(differs)[:300]}")
            pending = max(pending, 1)
        ends[end] += pending
        shutil.rmtree(out, ignore_errors=True)
    return ends
