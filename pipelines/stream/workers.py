"""Persistent worker processes that receive the plan of each batch that they create.

A worker has no notion of epochs: each task contains its plan, so any process can create any batch. A worker that dies
or stops responding is replaced by a new process, which receives the unanswered tasks. Tasks go to the workers in turn,
and answers are collected in the same turn.

Each worker has a separate socket (shared_memory.py) and shares no locks. A worker that is killed at any moment
therefore loses only its unfinished batches.

A batch during which a process died is retried alone, and the third time row by row, so the error can name the sample
that the third process was reading.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.connection import wait
from typing import Any, Generic, cast

from maskstream.shards.descriptors import Descriptor
from maskstream.shards.errors import MainModuleError, OutageError
from maskstream.shards.process_main import MAIN_FAILED
from maskstream.shards.processes import Process, describe_end, make_main_failed_error, open_memory_file

from .produce import BatchMaker, Made
from .sampler import BatchPlan, DraftT, HostT, RequestT
from .shared_memory import Channel
from .topology import cores
from .worker import BatchTask, Failed, SampleNames, WorkerProgress, serve

log = logging.getLogger(__name__)

TRIES = 3
"""Maximum number of processes that may die while creating one batch."""
TIMEOUT_S = 60.0
"""Default of `worker_timeout`."""
_START_S = 300.0
"""Seconds that a process may take to start: importing torch from a busy file system takes minutes."""
_LOOK_S = 1.0
"""Interval in seconds at which an awaited worker's progress is checked."""
_END_S = 5.0
_AT_ONCE, _PER_CORE = 8, 2
"""Minimum number of processes that start at the same time, and number per core, since each needs seconds of a core.
Others wait, and start only if they have a batch to create.
"""
_LOOK_FOR_STARTS_S = 0.1


@dataclass(slots=True)
class Assignment:
    """A plan, and the number of processes that died while creating it."""

    plan: BatchPlan
    deaths: int = 0

    @property
    def task(self) -> BatchTask:
        """Task to send. After a death the batch is created alone, and finally row by row, to find the cause."""
        return BatchTask(plan=self.plan, alone=self.deaths > 0, row_by_row=self.deaths == TRIES - 1)


class WorkerPool(Generic[HostT]):
    """`workers` spawned processes with `threads` threads each; each worker creates up to `prefetch` batches ahead.

    If there are many for the cores, they start in turns. A worker whose batch is awaited and that finishes no row for
    `timeout_s` seconds is killed and replaced.
    """

    def __init__(
        self,
        maker: BatchMaker[RequestT, DraftT, HostT],
        *,
        workers: int,
        threads: int,
        prefetch: int,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._prefetch, self._timeout_s = prefetch, timeout_s
        self._workers = [_Worker[HostT]((maker, threads), prefetch, timeout_s) for _ in range(workers)]
        self._at_once = max(_AT_ONCE, _PER_CORE * cores())
        if workers > self._at_once:
            log.warning(
                "starting %d worker processes, %d at a time; this process may use %d cores, so more than about "
                "workers=%d use memory without creating batches sooner",
                workers,
                self._at_once,
                cores(),
                cores(),
            )
        self._named = SampleNames(maker.sampler).error
        self._lock = threading.Lock()
        self._closed = False
        self._call, self._restarts = 0, 0
        weakref.finalize(self, _end_all, self._workers, os.getpid()).atexit = False
        _POOLS.add(self)

    @property
    def pids(self) -> list[int]:
        """Ids of the processes."""
        return [worker.pid for worker in self._workers]

    def batches(self, plans: Iterable[BatchPlan]) -> Generator[Made[HostT]]:
        """Yield the host batches of the plans in order. A new call ends the earlier one and keeps the processes.

        Raises:
            WorkerDiedError: `TRIES` processes died while creating one batch.
            MainModuleError: Workers cannot import a module that the maker needs.
            Exception: Errors of the batches, unchanged.
        """
        # Plans go to the workers in turn, and answers are collected in the same turn, so batches arrive in order
        # although workers run at different speeds. A worker gets its next plan when one of its batches is collected, so
        # it is never more than `prefetch` batches ahead.
        # Open batches are counted here, because `close` drops the workers' jobs: an epoch that it cuts short must not
        # look like a complete one.
        self._call += 1
        call, left, pending = self._call, map(Assignment, plans), 0
        self._begin()
        for _ in range(self._prefetch):
            for worker, job in zip(self._workers, left, strict=False):
                worker.add(job)
                pending += 1
        with self._lock:
            self._check_open()
            self._start_some()
        for worker in cycle(self._workers):
            if self._call != call or not pending:
                return
            answer = self._next(worker)
            pending -= 1
            if (job := next(left, None)) is not None:  # type: ignore[assignment]
                worker.add(job)
                pending += 1
            if isinstance(answer, Failed):
                raise answer.raised()
            answer.stats.restarts, self._restarts = self._restarts, 0
            yield answer

    def close(self) -> None:
        """End the processes. A thread that waits for a batch gets a RuntimeError."""
        self._closed = True
        with self._lock:
            _end_all(self._workers, os.getpid())

    def _begin(self) -> None:
        with self._lock:
            self._closed = False
            for worker in self._workers:
                worker.forget()
            self._start_some()

    def _start_some(self) -> bool:
        """Start as many missing processes as may start at the same time; returns whether more are waiting."""
        starting = sum(worker.is_starting for worker in self._workers)
        for number, worker in enumerate(self._workers):
            if worker.process is None and (worker.is_busy or number < self._at_once):
                if starting >= self._at_once:
                    return True
                worker.start()
                worker.send()
                starting += 1
        return False

    def _next(self, worker: _Worker[HostT]) -> Made[HostT] | Failed:
        """Return a worker's next answer. All workers are served in the meantime, and dead ones are replaced."""
        waited_s, steps = 0.0, worker.steps
        while not worker.answers:
            begun = time.monotonic()
            try:
                self._serve()
            except (OSError, ValueError):  # the sockets are closed
                self._check_open()
                raise
            if steps != (steps := worker.steps) or worker.process is None:
                waited_s = 0.0
                continue
            # Count waiting time only while the awaited worker makes no progress, and in slices of at most two
            # intervals: a process that was suspended (Ctrl-Z, a sleeping laptop) must not consider its workers dead
            # when it resumes.
            waited_s += min(time.monotonic() - begun, 2 * _LOOK_S)  # less than that if this process was suspended
            limit_s = self._timeout_s if steps and not worker.compiling else max(self._timeout_s, _START_S)
            if waited_s >= limit_s and not worker.answers:
                self._replace(worker, f"did nothing for {waited_s:.0f} s and was killed")
                waited_s = 0.0
        return worker.answers.popleft()

    def _serve(self) -> None:
        """Collect the answers of all workers as they arrive, replace dead workers, and start waiting ones."""
        with self._lock:
            self._check_open()
            more = self._start_some()
        pipes = {worker.pipe.fileno(): worker for worker in self._workers if worker.process is not None}
        for pipe in wait(list(pipes), min(_LOOK_FOR_STARTS_S if more else _LOOK_S, self._timeout_s)):
            worker = pipes[cast(int, pipe)]
            if not worker.take():
                self._replace(worker)

    def _replace(self, worker: _Worker[HostT], silent: str = "") -> None:
        """Start a new process for a worker that died or is silent; raises the error if its batch is to blame."""
        with self._lock:
            self._check_open()
            # The first batch without an answer is the suspect. It is retried in a new process, finally row by row, and
            # after `TRIES` deaths the error names its sample. Later batches are innocent.
            pid, row, how = worker.pid, worker.row, worker.end(silent)
            self._restarts += 1
            job = worker.find_first_unanswered()
            if job is None:
                log.warning("worker process %d %s; a new one takes its place", pid, how)
            else:
                job.deaths += 1
                if job.deaths == TRIES:
                    raise self._named(job.plan, row, how)
                epoch, batch = job.plan.number
                log.warning("worker process %d %s; a new one recreates batch %d of epoch %d", pid, how, batch, epoch)
            worker.start()
            worker.send()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the loader was closed while it waited for a batch; iterate again to continue")


class _Worker(Generic[HostT]):
    """A position in the turn: a process, its socket, and its jobs.

    `unsent` and `sent` are jobs in order, at most `prefetch` of them sent; None in `sent` is a job whose answer is no
    longer needed. `answers` were received but not handed out yet.
    """

    def __init__(self, what: tuple[BatchMaker[Any, Any, HostT], int], prefetch: int, timeout_s: float) -> None:
        self._what, self._prefetch, self._timeout_s = what, prefetch, timeout_s
        self.process: Process | None = None
        self._unsent: deque[Assignment] = deque()
        self._sent: deque[Assignment | None] = deque()
        self.answers: deque[Made[HostT] | Failed] = deque()

    @property
    def pid(self) -> int:
        """Process id; 0 without a process."""
        return 0 if self.process is None else self.process.pid

    @property
    def compiling(self) -> bool:
        """True if the process is compiling kernels, during which nothing else is finished."""
        return self.process is not None and self._progress.compiling

    @property
    def steps(self) -> int:
        """A number that changes when the process finishes something; 0 while it starts, and without a process."""
        return 0 if self.process is None else self._progress.steps

    @property
    def is_starting(self) -> bool:
        """True if there is a process that is not ready yet."""
        return self.process is not None and not self.steps

    @property
    def row(self) -> int | None:
        """Row that the process is filling, if it creates its batch row by row."""
        return self._progress.row

    @property
    def is_busy(self) -> bool:
        """True if an answer is still to be handed out."""
        return bool(self.answers or self._unsent) or any(job is not None for job in self._sent)

    def start(self) -> None:
        """Start a process.

        Raises:
            OutageError: The machine has no resources for another process.
        """
        try:
            self.process = self._start_process()
        except OSError as error:
            raise OutageError(
                f"a worker process cannot be started ({error.strerror}); raise `ulimit -n` and `ulimit -u`, "
                "or use fewer workers"
            ) from error

    def _start_process(self) -> Process:
        self.pipe, theirs = socket.socketpair()
        with ExitStack() as on_failure, theirs:  # the socket then closes with the process
            on_failure.callback(self.pipe.close)
            self.pipe.settimeout(self._timeout_s)
            self._channel = Channel(self.pipe)
            words = open_memory_file(WorkerProgress.BYTES)
            on_failure.callback(os.close, words)
            self._progress = WorkerProgress(words)
            torch = ("torch",) if self._what[0].sampler.needs_torch else ()
            ends = Descriptor(theirs.fileno()), Descriptor(words)
            process = Process(serve, *self._what, *ends, fork=True, also=torch)
            process.start()
            on_failure.pop_all()
        os.close(words)
        return process

    def add(self, job: Assignment) -> None:
        """Append a job."""
        self._unsent.append(job)
        self.send()

    def send(self) -> None:
        """Send jobs while fewer than `prefetch` are sent; they wait if there is no process. `take` detects dead
        processes.
        """
        while self.process is not None and self._unsent and len(self._sent) < self._prefetch:
            job = self._unsent.popleft()
            self._sent.append(job)
            try:
                self._channel.send(job.task)
            except TimeoutError:  # it reads nothing
                self.process.kill()
            except ConnectionError:
                continue

    def take(self) -> bool:
        """Receive an answer; returns False if the process died and all its answers were received."""
        try:
            answer: Made[HostT] | Failed = self._channel.receive()
        except (EOFError, TimeoutError):
            return False
        except BaseException:  # an answer is lost, so later ones would be mistaken for it
            self.end("lost a batch")
            self.find_first_unanswered()
            raise
        if self._sent.popleft() is not None:
            self.answers.append(answer)
        self.send()
        return True

    def forget(self) -> None:
        """Drop all jobs and answers. The process still completes the jobs already sent; their answers
        are dropped too.
        """
        # Sent jobs cannot be withdrawn, and their answers will arrive: a None for each keeps the count.
        self._unsent.clear()
        self.answers.clear()
        self._sent = deque([None] * len(self._sent))

    def find_first_unanswered(self) -> Assignment | None:
        """Mark all jobs without an answer as unsent, for another process; returns the first that had been sent."""
        again = [job for job in self._sent if job is not None]
        self._sent.clear()
        self._unsent.extendleft(reversed(again))
        return again[0] if again else None

    def end(self, silent: str = "") -> str:
        """Kill the process; returns how it ended, or `silent` if not empty.

        Raises:
            MainModuleError: It could not import the main module.
        """
        steps, process, self.process = self.steps, self.process, None
        if process is None:
            return "was ended"
        if not silent:
            process.join(_END_S)
        process.kill()
        process.join(_END_S)
        self._channel.close()
        code = process.exitcode
        if code is None:  # it hangs in a system call and ends with it
            return silent or "cannot be ended"
        if code == MAIN_FAILED:
            raise make_main_failed_error(process.names)
        return silent or describe_end(code) + ("" if steps else " while it started")


def _end_all(workers: list[_Worker[Any]], owner: int) -> None:
    """Kill all processes, unless this process is a fork of the one that started them."""
    if os.getpid() != owner:
        return
    for worker in workers:
        if worker.process is not None:
            worker.process.kill()
    for worker in workers:
        worker.forget()
        worker.find_first_unanswered()
        with suppress(MainModuleError):
            worker.end("was ended")


_POOLS: weakref.WeakSet[WorkerPool[Any]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close all pools at exit, so that a thread waiting for a batch ends too."""
    for pool in list(_POOLS):
        pool.close()
