"""Tasks in supervised processes on this machine: one that is killed costs only the task that it was at.

Each process takes one task after the other through a pipe of its own. A dead process shows as the end of its pipe; its
task goes to a fresh process, up to `RETRIES` times. (Pools of the standard library give up, or hang, as a whole.)
"""

from __future__ import annotations

import copy
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

from ...shards.errors import MaskstreamError
from ...shards.spawn import MAIN_FAILED, SPAWN, Process, dumps, main_failed

RETRIES = 2
"""How often a task whose process died is tried again."""

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")
Report = Callable[[str], None]
"""What a task calls with a word on where it is, such as the name of the file that it has finished."""


class WorkerDiedError(MaskstreamError):
    """The processes that worked on one task died again and again."""


@dataclass(frozen=True, slots=True)
class Progressed(Generic[TaskT]):
    """A task reported `note`."""

    task: TaskT
    note: str


@dataclass(frozen=True, slots=True)
class Restarted(Generic[TaskT]):
    """The process of a task died, `reason` says how; the task begins again in another one."""

    task: TaskT
    reason: str


@dataclass(frozen=True, slots=True)
class Finished(Generic[TaskT, ResultT]):
    """A task returned `result`."""

    task: TaskT
    result: ResultT


Event = Progressed[TaskT] | Restarted[TaskT] | Finished[TaskT, ResultT]


def run_local(
    work: Callable[[TaskT, Report], ResultT], tasks: Sequence[TaskT], *, workers: int
) -> Generator[Event[TaskT, ResultT], None, None]:
    """Events of `work(task, report)` over all `tasks`, as they happen, in at most `workers` processes.

    `work`, tasks and results are pickled; an exception of `work` is raised here. `workers=0` works in this process, one
    task after the other. Leaving the iterator early (an exception, Ctrl-C) ends all processes. Raises WorkerDiedError
    for a task whose process died `RETRIES + 1` times.
    """
    if workers == 0:
        yield from _in_process(work, tasks)
        return
    waiting = deque((task, 0) for task in tasks)
    busy: dict[object, _Worker[TaskT, ResultT]] = {}
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
    work: Callable[[TaskT, Report], ResultT],
    waiting: deque[tuple[TaskT, int]],
    busy: dict[object, _Worker[TaskT, ResultT]],
) -> None:
    if waiting:
        worker = _Worker(work, *waiting.popleft())
        busy[worker.pipe] = worker


def _in_process(work: Callable[[TaskT, Report], ResultT], tasks: Sequence[TaskT]) -> Iterator[Event[TaskT, ResultT]]:
    for task in tasks:
        notes: list[str] = []
        result = work(task, notes.append)
        yield from (Progressed(task, note) for note in notes)
        yield Finished(task, result)


class _Worker(Generic[TaskT, ResultT]):
    """A process, the pipe to it, and the task that it is at."""

    def __init__(self, work: Callable[[TaskT, Report], ResultT], task: TaskT, deaths: int) -> None:
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

    def receive(self) -> Event[TaskT, ResultT]:
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


def _serve(work: Callable[[TaskT, Report], ResultT], pipe: Connection) -> None:
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
