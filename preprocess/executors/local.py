"""Runs tasks in supervised processes on this machine; a killed process costs only its current task.

Each process receives one task after another through its own pipe. If a process dies, its pipe ends, and the task goes
to a new process, up to `RETRIES` times. (The pools of the standard library fail or hang as a whole.)
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

from ...shards.errors import WorkerDiedError
from ...shards.spawn import MAIN_FAILED, SPAWN, Process, dumps, end_with_parent, main_failed
from .base import Event, Executor, Finished, Progressed, RecordT, Restarted, TaskT, Work

RETRIES = 2
"""How often a task is repeated after its process died."""


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """Starts at most `workers` processes (default: one per core that this process may use); 0 runs the tasks in this
    process, one by one. Raises WorkerDiedError if a task's process died `RETRIES + 1` times.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers={self.workers} must be at least 0; 0 runs the tasks in this process")

    def run(self, work: Work[TaskT, RecordT], tasks: Sequence[TaskT]) -> Generator[Event[TaskT, RecordT], None, None]:
        """Yield the events of all tasks as they happen; closing the generator ends all processes."""
        workers = _cores() if self.workers is None else self.workers
        return _in_processes(work, tasks, workers) if workers else _here(work, tasks)


def executor_of(executor: Executor | None, workers: int | None) -> Executor:
    """`executor`, or a local one with `workers` processes. Raises ValueError if both are given."""
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
    """A process, the pipe to it, and its current task."""

    def __init__(self, work: Work[TaskT, RecordT], task: TaskT, deaths: int) -> None:
        self.pipe, theirs = SPAWN.Pipe()
        self._process: Process = SPAWN.Process(target=_serve, args=(work, theirs), daemon=True)
        self._process.start()
        theirs.close()  # the pipe then ends when the process does
        self.give(task, deaths)

    def give(self, task: TaskT, deaths: int) -> None:
        """Send a task to the process; `deaths` processes died while running it before."""
        self.task, self.deaths, self._note = task, deaths, ""
        data, self._of_main = dumps(task)
        try:
            self.pipe.send_bytes(data)
        except OSError:  # the process died between two tasks; the next receive reports it
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
            f"a worker process {how}; its last note was {self._note!r}" if self._note else f"a worker process {how}"
        )
        if self.deaths >= RETRIES:
            raise WorkerDiedError(
                f"{reason}; {self.task} was tried {self.deaths + 1} times. The machine ran out of memory (SIGKILL) or "
                "a file crashed its decoder (SIGSEGV): use fewer workers, or remove the file, and run the command again"
            )
        return Restarted(self.task, reason)

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(work: Work[TaskT, RecordT], pipe: Connection) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the parent handles it

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
    """The error, or a RuntimeError with its text if the error cannot be pickled."""
    try:
        pickle.dumps(error)
        return copy.copy(error)
    except (pickle.PicklingError, TypeError, AttributeError):
        return RuntimeError(f"{type(error).__name__}: {error}")
