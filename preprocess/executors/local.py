"""Runs tasks in supervised processes on this machine; a killed process costs only its current task.

Each process receives one task after another through its own pipe. If a process dies, its pipe ends, and the task goes
to a new process, up to `RETRIES` times. If an attempt at a unit ended it, the task is told so, and the unit pays for it
instead of the job. (The pools of the standard library fail or hang as a whole.)
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Generic

from maskstream.shards.errors import WorkerDiedError

from .base import (
    Again,
    Attempt,
    Crashed,
    Event,
    Executor,
    Finished,
    Progressed,
    RecordT,
    Restarted,
    Retried,
    TaskT,
    Work,
)
from .worker import TICK_S, Worker

RETRIES = 2
"""How often a task is repeated after its process died and no unit is to blame."""
CRASHES = 2
"""How often a unit may end a process; a task that is told so often must leave it out."""


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """Starts at most `workers` processes (default: one per core that this process may use); 0 runs the tasks in this
    process, one by one, where nothing supervises them: a unit that crashes or hangs then ends or holds the run. Raises
    WorkerDiedError if a task's process died `RETRIES + 1` times.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers={self.workers} must be at least 0; 0 runs the tasks in this process")

    def run(self, work: Work[TaskT, RecordT], tasks: Sequence[TaskT]) -> Generator[Event[TaskT, RecordT], None, None]:
        """Yield the events of all tasks as they happen; closing the generator ends all processes."""
        workers = _cores() if self.workers is None else self.workers
        return _Processes(work, tasks).run(workers) if workers else _here(work, tasks)


def executor_of(executor: Executor | None, workers: int | None) -> Executor:
    """`executor`, or a local one with `workers` processes. Raises ValueError if both are given."""
    if executor is not None and workers is not None:
        raise ValueError(
            f"{executor=} and {workers=} exclude each other; give LocalExecutor({workers}) or only workers"
        )
    return LocalExecutor(workers) if executor is None else executor


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _here(work: Work[TaskT, RecordT], tasks: Sequence[TaskT]) -> Generator[Event[TaskT, RecordT], None, None]:
    for task in tasks:
        notes: list[str | Attempt | Again] = []
        record = work(task, notes.append)
        for note in notes:
            if isinstance(note, Again):
                yield Retried(task, note.reason)
            elif isinstance(note, str):
                yield Progressed(task, note)
        yield Finished(task, record)


class _Processes(Generic[TaskT, RecordT]):
    """The tasks that wait, each with the number of processes that died of it, and the processes that are busy."""

    def __init__(self, work: Work[TaskT, RecordT], tasks: Sequence[TaskT]) -> None:
        self._work = work
        self._waiting = deque((task, 0) for task in tasks)
        self._busy: dict[object, Worker[TaskT, RecordT]] = {}
        self._crashes: Counter[tuple[str, str]] = Counter()

    def run(self, workers: int) -> Generator[Event[TaskT, RecordT], None, None]:
        """Yield the events of all tasks as they happen."""
        try:
            for _ in range(min(workers, len(self._waiting))):
                self._start()
            while self._busy:
                yield from self._events()
        finally:
            for worker in self._busy.values():
                worker.end()

    def _events(self) -> Iterator[Event[TaskT, RecordT]]:
        """Wait for events, but no longer than a tick while an attempt is measured."""
        watched = any(worker.is_watched for worker in self._busy.values())
        for pipe in wait([worker.pipe for worker in self._busy.values()], TICK_S if watched else None):
            yield self._handled(self._busy[pipe], self._busy[pipe].receive())
        for worker in list(self._busy.values()):
            if crashed := worker.overdue():
                yield self._handled(worker, crashed)

    def _handled(self, worker: Worker[TaskT, RecordT], event: Event[TaskT, RecordT]) -> Event[TaskT, RecordT]:
        """The event, after what it asks for is done."""
        if isinstance(event, Restarted):
            if worker.deaths >= RETRIES:
                raise WorkerDiedError(worker.last_words(event.reason))
            self._waiting.appendleft((event.task, worker.deaths + 1))
        if isinstance(event, Crashed):
            self._crashes[event.task.name, event.unit] += 1
            if self._crashes[event.task.name, event.unit] > CRASHES:
                raise WorkerDiedError(
                    f"{event.task.name}: {event.unit} {event.reason}, and was tried again all the same"
                )
            self._waiting.appendleft((event.task, worker.deaths))
        if isinstance(event, Finished) and self._waiting:
            worker.give(*self._waiting.popleft())
        elif not isinstance(event, Progressed):
            self._busy.pop(worker.pipe).end()
            self._start()
        return event

    def _start(self) -> None:
        if self._waiting:
            worker = Worker(self._work, *self._waiting.popleft())
            self._busy[worker.pipe] = worker
