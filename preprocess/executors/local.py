"""Run tasks in supervised processes on this machine; a killed process loses only its current task.

Each process receives tasks through its own pipe. If a process dies, its pipe closes and the task moves to a new
process, up to `RETRIES` times. If an attempt at a unit caused the death, the task is marked with it, so that the unit
is skipped instead of failing the job. (Process pools of the standard library fail or hang as a whole.)
"""

import ctypes
import os
import signal
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Generic

from maskstream.shards.descriptors import Descriptor
from maskstream.shards.errors import WorkerDiedError
from maskstream.shards.process_main import MAIN_FAILED
from maskstream.shards.processes import (
    Process,
    describe_end,
    dumps,
    make_main_failed_error,
    make_picklable,
    name_signal,
)

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

TICK_S = 0.25
"""Seconds between measurements of an attempt."""
_LONGEST_TICK_S = 4 * TICK_S
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Stopwatch:
    """Measures an attempt of the process `pid` from now on.

    The clock runs while the process computes, sleeps or waits for a disk, but not while it waits for a CPU, so that a
    busy machine does not fail a unit, nor while this process is stopped (Ctrl-Z).
    """

    def __init__(self, attempt: Attempt, pid: int) -> None:
        self.attempt = attempt
        self._pid = pid
        self._last, self._wall_s = time.monotonic(), 0.0
        self._waited_s = _waited_s(pid)

    def passed(self) -> str | None:
        """Return the limit that the attempt has exceeded as a message, or None. Call it at each tick."""
        now = time.monotonic()
        self._wall_s += min(now - self._last, _LONGEST_TICK_S)
        self._last = now
        time_s, memory_bytes = self.attempt.time_s, self.attempt.memory_bytes
        if self._wall_s > time_s and self._wall_s - (_waited_s(self._pid) - self._waited_s) > time_s:
            return f"took longer than {time_s:g} s"
        if memory_bytes is not None and _measure_own_bytes(self._pid) > memory_bytes:
            return f"took more than {memory_bytes / 1e9:g} GB of memory"
        return None


def _waited_s(pid: int) -> float:
    """Return how long a process's main thread has waited for a CPU, in seconds; 0 if the system does not report it."""
    numbers = _numbers(pid, "schedstat")
    return numbers[1] / 1e9 if len(numbers) == 3 else 0.0


def _measure_own_bytes(pid: int) -> int:
    """Return the memory that a process shares with neither a file nor another process, in bytes."""
    numbers = _numbers(pid, "statm")
    return (numbers[1] - numbers[2]) * _PAGE_BYTES if len(numbers) > 2 else 0


def _numbers(pid: int, name: str) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/{name}").read_text().split()]
    except (OSError, ValueError):
        return []


_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS)
"""Signals raised by a process's own faults; other signals come from outside."""
_PR_SET_PDEATHSIG = 1


class Worker(Generic[TaskT, RecordT]):
    """A process, its pipe and its current task."""

    def __init__(self, work: Work[TaskT, RecordT], task: TaskT, deaths: int) -> None:
        self.pipe, theirs = Pipe()
        data = self._taken(task, deaths)  # may raise, so it comes before the process starts
        with theirs:  # so the pipe closes when the process ends
            self._process = Process(_serve, work, Descriptor(theirs.fileno()), os.getpid())
            self._process.start()
        self._send(data)

    def give(self, task: TaskT, deaths: int) -> None:
        """Send a task to the process. `deaths` processes have died running it without a unit to blame."""
        self._send(self._taken(task, deaths))

    def _taken(self, task: TaskT, deaths: int) -> bytes:
        """Make a task the current one and return it serialized. Raises MainModuleError (see `dumps`)."""
        data, self._of_main = dumps(task)
        self.task, self.deaths, self._note = task, deaths, ""
        self._watch: Stopwatch | None = None
        return data

    def _send(self, data: bytes) -> None:
        try:
            self.pipe.send_bytes(data)
        except OSError:  # the process died between two tasks; the next receive reports it
            return

    def receive(self) -> Event[TaskT, RecordT]:
        """Return the task's next event."""
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            return self._report_death()
        if kind == "failed":
            error, where = value
            error.add_note(f"in a worker process:\n{where}")
            raise error
        watch, self._watch = self._watch, None
        if kind == "done":
            return Finished(self.task, value)
        if isinstance(value, Attempt):
            self._watch = watch or Stopwatch(value, self._process.pid)
            self._watch.attempt = value
            value = value.unit
        if isinstance(value, Again):
            self._note = value.reason
            return Retried(self.task, value.reason)
        self._note = value or self._note
        return Progressed(self.task, value)

    @property
    def is_watched(self) -> bool:
        """Whether the process is in an attempt, which must be measured at each tick."""
        return self._watch is not None

    def find_overdue(self) -> Crashed[TaskT] | None:
        """Return the crash of an attempt that has exceeded a limit, or None. The process must then be killed."""
        passed = None if self._watch is None or self.pipe.poll() else self._watch.passed()
        return None if self._watch is None or passed is None else self._report_crash(self._watch, passed)

    def _report_crash(self, watch: Stopwatch, reason: str) -> Crashed[TaskT]:
        unit = watch.attempt.unit
        return Crashed(self.task.crashed(unit, reason), unit, reason)

    def _report_death(self) -> Restarted[TaskT] | Crashed[TaskT]:
        self._process.join()
        code = self._process.exitcode or 0
        if code == MAIN_FAILED:
            raise make_main_failed_error(self._process.names or self._of_main)
        if self._watch is not None and code >= 0:
            return self._report_crash(self._watch, f"ended its process with code {code}")
        if self._watch is not None and -code in _FAULTS:
            return self._report_crash(self._watch, f"killed its process by {name_signal(-code)}")
        at = f"; its last note was {self._note!r}" if self._note else ""
        return Restarted(self.task, f"a worker process {describe_end(code)}{at}")

    def describe_last_death(self, reason: str) -> str:
        """Return the error message for the death that ends the run."""
        if self._process.exitcode == -signal.SIGKILL:
            advice = (
                "The system sends SIGKILL when memory runs out: use fewer workers, or set a memory limit, so that a "
                "file that needs too much memory is rejected"
            )
        else:
            advice = "Fix what ended it (see above)"
        return (
            f"{reason}; {self.task.name} was tried {self.deaths + 1} times. {advice}; then run the same command "
            "again to continue"
        )

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(work: Work[TaskT, RecordT], end: Descriptor, parent: int) -> None:
    _die_with(parent)
    pipe: Connection[object, TaskT] = Connection(end.number)

    def send(message: tuple[str, object]) -> None:
        try:
            pipe.send(message)
        except OSError:  # the parent is gone
            raise SystemExit(1) from None

    def report(note: str | Attempt | Again) -> None:
        send(("note", note))

    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        message: tuple[str, object]
        try:
            message = ("done", work(task, report))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # a panic of Rust code is not an Exception
            message = ("failed", (make_picklable(error), traceback.format_exc()))
        send(message)


def _die_with(parent: int) -> None:
    """Make this process end with its parent.

    On Linux the kernel kills it, which also works while a library holds the GIL; the watcher thread of the other worker
    processes could not run then.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            os._exit(1)


RETRIES = 2
"""How often a task is repeated after its process died without a unit to blame."""
CRASHES = 2
"""How many processes a unit may crash before its task must skip it."""


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """Runs tasks in up to `workers` processes (default: one per available core).

    With 0 workers, tasks run one by one in this process without supervision: a unit that crashes or hangs then ends or
    blocks the run.

    Raises:
        WorkerDiedError: A task's process died `RETRIES + 1` times.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers={self.workers} must be at least 0; 0 runs the tasks in this process")

    def run(self, work: Work[TaskT, RecordT], tasks: Sequence[TaskT]) -> Generator[Event[TaskT, RecordT], None, None]:
        """Yield the events of all tasks as they happen. Closing the generator kills all processes."""
        workers = _count_cores() if self.workers is None else self.workers
        return _Processes(work, tasks).run(workers) if workers else _run_here(work, tasks)


def choose_executor(executor: Executor | None, workers: int | None) -> Executor:
    """Return `executor`, or a local one with `workers` processes. Raises ValueError if both are set."""
    if executor is not None and workers is not None:
        raise ValueError(
            f"{executor=} and {workers=} cannot be combined; pass LocalExecutor({workers}) or only workers"
        )
    return LocalExecutor(workers) if executor is None else executor


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_here(work: Work[TaskT, RecordT], tasks: Sequence[TaskT]) -> Generator[Event[TaskT, RecordT], None, None]:
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
    """Waiting tasks, each with the number of processes that died running it, and busy processes."""

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
            yield self._handle_event(self._busy[pipe], self._busy[pipe].receive())
        for worker in list(self._busy.values()):
            if crashed := worker.find_overdue():
                yield self._handle_event(worker, crashed)

    def _handle_event(self, worker: Worker[TaskT, RecordT], event: Event[TaskT, RecordT]) -> Event[TaskT, RecordT]:
        """Update the queues for an event and return it."""
        if isinstance(event, Restarted):
            if worker.deaths >= RETRIES:
                raise WorkerDiedError(worker.describe_last_death(event.reason))
            self._waiting.appendleft((event.task, worker.deaths + 1))
        if isinstance(event, Crashed):
            self._crashes[event.task.name, event.unit] += 1
            if self._crashes[event.task.name, event.unit] > CRASHES:
                raise WorkerDiedError(f"{event.task.name}: {event.unit} {event.reason}, but was tried again")
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
