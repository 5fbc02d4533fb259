"""What says that a task is done, and the driver of all jobs: it runs the tasks that are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import Protocol

import av

from .executors.base import Executor, Finished, Progressed, RecordT, TaskT, TaskT_contra, Work
from .progress import Progress


class Ledger(Protocol[TaskT_contra, RecordT]):
    """Which tasks are done; what it has recorded survives a kill. The SQLite journal of a split is one."""

    def stands(self, task: TaskT_contra) -> RecordT | None:
        """The record of a task that is done and whose files still stand."""

    def record(self, task: TaskT_contra, done: RecordT) -> None:
        """Note that a task is done."""


def run_tasks(
    executor: Executor,
    work: Work[TaskT, RecordT],
    tasks: Sequence[TaskT],
    ledger: Ledger[TaskT, RecordT],
    progress: Progress,
    *,
    phase: str,
    unit: str,
) -> dict[str, RecordT]:
    """The records of all tasks by name, after `executor` has done those that do not stand in `ledger`.

    `progress` is told of a phase that counts the tasks' units; what a task does not report one by one counts when it
    has finished.
    """
    there = {task.name: ledger.stands(task) for task in tasks}
    done = {name: record for name, record in there.items() if record is not None}
    todo = [task for task in tasks if task.name not in done]
    if todo:
        n_all, n_todo = (sum(task.units for task in some) for some in (tasks, todo))
        progress.phase(phase, n_all, n_all - n_todo, unit)
    told: Counter[str] = Counter()
    with closing(executor.run(work, todo)) as events:
        for event in events:
            task = event.task
            if isinstance(event, Finished):
                ledger.record(task, event.record)
                done[task.name] = event.record
                units = task.units - told.pop(task.name, 0)
                if units:
                    progress.advance(units)
            elif not isinstance(event, Progressed):
                progress.say(f"{task.name}: {event.reason}; it begins again")
                progress.advance(-told.pop(task.name, 0))
            elif not event.note:
                told[task.name] += 1
                progress.advance(1)
    return done


def libraries() -> dict[str, str]:
    """The versions of FFmpeg's libraries, which what is encoded or indexed depends on."""
    return {name: ".".join(map(str, version)) for name, version in sorted(av.library_versions.items())}
