"""Verifies a split in tasks, one per shard, in an executor. The report is the same wherever they run.

A split below 64 MB is read in the process that asks.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from maskstream.preprocess.executors.base import Attempt, Executor, Report
from maskstream.preprocess.executors.local import LocalExecutor, executor_of
from maskstream.preprocess.source import RejectError
from maskstream.shards.errors import MaskstreamError, OutageError
from maskstream.shards.format.verify import SplitCheck, VerifyReport, unreadable

from .ledger import CrashableTask, run_tasks
from .progress import Progress

SMALL_BYTES = 64 << 20
"""A split of so few bytes is read sooner than processes start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckTask(CrashableTask):
    """The check of one shard of the split at a location. `run` is another word in each verification, so that a process
    opens the split once in each, for its files may be others by then.
    """

    location: str | Path
    run: str
    number: int
    name: str
    size_bytes: int
    decode: bool

    @property
    def units(self) -> int:
        """The size in kB."""
        return -(-self.size_bytes // 1000)


def check_shard(task: CheckTask, report: Report) -> list[str]:
    """The problems of a shard. One whose bytes end two processes has that problem."""
    try:
        task.crashes.check(task.name)
    except RejectError as error:
        return [f"{task.name}: cannot be checked ({error.reason})"]
    check = _opened(task.location, task.run)
    report(Attempt(task.name, math.inf))
    return check.shard_problems(task.number, decode=task.decode, advance=lambda size_bytes: None)


@lru_cache(maxsize=1)
def _opened(location: str | Path, run: str) -> SplitCheck:
    return SplitCheck.of(location, cached=True)


@dataclass(frozen=True, slots=True)
class _Found:
    """A ledger in memory: the problems by shard."""

    problems: dict[str, list[str]] = field(default_factory=dict)

    def stands(self, task: CheckTask) -> list[str] | None:
        return None

    def record(self, task: CheckTask, done: list[str], restarts: int) -> None:
        self.problems[task.name] = done


def verify_split(
    location: str | Path,
    *,
    decode: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """What `verify` (shards/format/verify.py) finds, from a task per shard in `executor`, by default
    `LocalExecutor(workers)`. A small split is read in this process unless `workers` says how.

    Raises OutageError if the location cannot be reached.
    """
    runs = executor_of(executor, workers)
    try:
        check = SplitCheck.of(location)
    except OutageError:
        raise
    except MaskstreamError as error:
        return unreadable(error)
    info = check.manifest.info
    if workers is None and not decode and info["counts"]["bytes"] < SMALL_BYTES:
        runs = LocalExecutor(0)
    found = _Found()
    run_tasks(
        runs,
        check_shard,
        _tasks(location, check, decode),
        found,
        progress or Progress(),
        phase=f"verify {info['split']}",
        unit="kB",
    )
    problems = check.split_problems()
    for name in check.manifest.shard_names:
        problems += found.problems[name]
    return check.report(problems)


def _tasks(location: str | Path, check: SplitCheck, decode: bool) -> list[CheckTask]:
    run = secrets.token_hex(8)
    return [
        CheckTask(
            location=location,
            run=run,
            number=number,
            name=shard.name,
            size_bytes=shard.size_bytes,
            decode=decode,
        )
        for number, shard in enumerate(check.shards)
    ]
