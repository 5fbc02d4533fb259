"""Tasks in supervised processes on this machine: one that is killed costs only the task that it was at.

Each process takes one task after the other through a pipe of its own. A dead process shows as the end of its pipe; its
task goes to a fresh process, up to `RETRIES` times. (Pools of the standard library give up, or hang, as a whole.)
"""

from __future__ import annotations

import copy
import os
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Generic

from ...shards.spawn import MAIN_FAILED, SPAWN, Process, dumps, end_with_parent, main_failed
from .base import Event, Executor, Finished, Progressed, RecordT, Restarted, TaskT, Work, WorkerDiedError

RETRIES = 2
"""How often a task whose process died is tried again."""


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """At most `workers` processes (default: the cores that this process may use); 0 works in this process, one task
    after the other. WorkerDiedError for a task whose process died `RETRIES + 1` times.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers={self.workers} must be at least 0")

    def run(self, work: Work[TaskT, RecordT], tasks: Sequence[TaskT]) -> Generator[Event[TaskT, RecordT], None, None]:
        """The events of all tasks as they happen; closing the generator ends all processes."""
        workers = _cores() if self.workers is None else self.workers
        return _in_processes(work, tasks, workers) if workers else _here(work, tasks)


def executor_of(executor: Executor | None, workers: int | None) -> Executor:
    """The executor that was given, or a local one; ValueError where both are given, for an executor has its own."""
    if executor is not None and workers is not None:
        raise ValueError(
            f"{executor=} and {workers=} exclude each other; give LocalExecutor({workers}) or only workers"
        )
    return LocalExecutor(workers) if executor is None else executor


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_processes(
    work: Work[TaskT, RecordT], tasks: Sequence[TaskT], workers: int
) -> Generator[Event[TaskT, RecordT], None, None]:
    waiting = deque((task, 0) for task in tasks)
    busy: dict[object, _Worker[TaskT, RecordT]] = {}
    try:
        for _ in range(min(workers, len(tasks))):
            _start(work, waiting, busy)
        while busy:
            for pipe in wait([worker.pipe for worker in busy.values()]):
                worker = busy[pipe]
                event = worker.receive()
                if isinstance(event, Restarted):
                    waiting.appendleft((event.task, worker.deaths + 1))
                if isinstance(event, Finished) and waiting:
                    worker.give(*waiting.popleft())
                elif not isinstance(event, Progressed):
                    busy.pop(pipe).end()
                    _start(work, waiting, busy)
                yield event
    finally:
        for worker in busy.values():
            worker.end()


def _start(
    work: Work[TaskT, RecordT],
    waiting: deque[tuple[TaskT, int]],
    busy: dict[object, _Worker[TaskT, RecordT]],
) -> None:
    if waiting:
        worker = _Worker(work, *waiting.popleft())
        busy[worker.pipe] = worker


def _here(work: Work[TaskT, RecordT], tasks: Sequence[TaskT]) -> Generator[Event[TaskT, RecordT], None, None]:
    for task in tasks:
        notes: list[str] = []
        record = work(task, notes.append)
        yield from (Progressed(task, note) for note in notes)
        yield Finished(task, record)


class _Worker(Generic[TaskT, RecordT]):
    """A process, the pipe to it, and the task that it is at."""

    def __init__(self, work: Work[TaskT, RecordT], task: TaskT, deaths: int) -> None:
        self.pipe, theirs = SPAWN.Pipe()
        self._process: Process = SPAWN.Process(target=_serve, args=(work, theirs), daemon=True)
        self._process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.give(task, deaths)

    def give(self, task: TaskT, deaths: int) -> None:
        """Begin a task; `deaths` processes died of it before."""
        self.task, self.deaths, self._note = task, deaths, ""
        data, self._of_main = dumps(task)
        try:
            self.pipe.send_bytes(data)
        except OSError:  # it died between two tasks: the next receive says so
            return

    def receive(self) -> Event[TaskT, RecordT]:
        """The next event of the task."""
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            return self._died()
        if kind == "failed":
            error, where = value
            error.add_note(f"in a worker process:\n{where}")
            raise error
        if kind == "note":
            self._note = value or self._note
            return Progressed(self.task, value)
        return Finished(self.task, value)

    def _died(self) -> Restarted[TaskT]:
        self._process.join()
        code = self._process.exitcode or 0
        if code == MAIN_FAILED:
            raise main_failed(self._process.names or self._of_main)
        how = f"was killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
        reason = (
            f"a worker process {how}, after its last word {self._note!r}" if self._note else f"a worker process {how}"
        )
        if self.deaths >= RETRIES:
            raise WorkerDiedError(
                f"{reason}; {self.task} was tried {self.deaths + 1} times. Memory runs out (SIGKILL) or a file "
                "crashes its decoder (SIGSEGV): use fewer workers, or take the file away, and run the command again"
            )
        return Restarted(self.task, reason)

    def end(self) -> None:
        """End the process whatever it does."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(work: Work[TaskT, RecordT], pipe: Connection) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of the terminal's processes; the parent decides

    def report(note: str) -> None:
        pipe.send(("note", note))

    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        message: tuple[str, object]
        try:
            message = ("done", work(task, report))
        except Exception as error:
            message = ("failed", (_picklable(error), traceback.format_exc()))
        pipe.send(message)


def _picklable(error: Exception) -> Exception:
    """The error, or its text where it cannot go through the pipe (what it holds, or how it is built, forbids it)."""
    try:
        pickle.dumps(error)
        return copy.copy(error)
    except (pickle.PicklingError, TypeError, AttributeError):
        return RuntimeError(f"{type(error).__name__}: {error}")
