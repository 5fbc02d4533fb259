"""Main function of a worker process: creates the batches of the plans that it receives, in turn."""

import mmap
import os
import socket
import sys
import traceback
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Generic, ParamSpec, TypeVar

from maskstream.shards.descriptors import Descriptor
from maskstream.shards.errors import MaskstreamError, SampleError, WorkerDiedError
from maskstream.shards.processes import make_picklable

from .kept import keep_in
from .produce import Announced, BatchMaker, Begun, InCaller, Made
from .sampler import BatchPlan, DraftT, HostT, RequestT, Sampler, Wanted
from .shared_memory import Channel
from .tensors import keep_arrays, torch

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchTask:
    """The plan of a batch to create."""

    plan: BatchPlan
    alone: bool = False
    """Create no other batch at the same time, because a process died while creating this one."""
    row_by_row: bool = False
    """Fill rows one by one, and record the current row."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Error raised by a batch, and its traceback unless the message is sufficient."""

    error: Exception
    where: str = ""

    def raised(self) -> Exception:
        """Return the error, with the worker's traceback added if there is one."""
        if self.where:
            self.error.add_note(f"in a worker process:\n{self.where}")
        return self.error


class WorkerProgress:
    """Progress of a worker process in memory shared with its parent: one writes, the other reads at any time."""

    BYTES = 24

    def __init__(self, file: int) -> None:
        """Map the file with a descriptor, which may be closed afterwards."""
        self.words = memoryview(mmap.mmap(file, self.BYTES)).cast("q")

    @property
    def steps(self) -> int:
        """A number that changes with every row and batch; 0 while the process starts."""
        return self.words[0]

    @property
    def row(self) -> int | None:
        """Row being filled; None if rows are not filled one by one."""
        return self.words[1] - 1 if self.words[1] else None

    @property
    def compiling(self) -> bool:
        """True if kernels are being compiled, which takes long on a busy machine."""
        return self.words[2] > 0

    def compile(self, more: int) -> None:
        """Record that this many more kernels are being compiled."""
        self.words[2] += more
        self.step()

    def step(self, _: object = None) -> None:
        """Record progress."""
        self.words[0] += 1

    def begin(self, row: int | None) -> None:
        """Record the row that is filled from now on."""
        self.words[1] = 0 if row is None else row + 1


def serve(
    maker: BatchMaker[RequestT, DraftT, HostT],
    threads: int,
    pipe: Descriptor,
    words: Descriptor,
) -> None:
    """Answer each task with `Made` or `Failed`, in turn, until the parent is gone.

    Args:
        maker: Creates the batches.
        threads: Number of threads.
        pipe: Socket to the parent.
        words: File of the `WorkerProgress`.
    """
    _settle()
    tasks_in, progress = socket.socket(fileno=pipe.number), WorkerProgress(words.number)
    channel = Channel(tasks_in)
    keep_in(channel.ring)
    batches = _Batches(maker, threads, progress)
    if (jit := sys.modules.get("maskstream.shards.jit")) is not None:  # else the modality has no kernels
        jit.watch(progress.compile)
    progress.step()
    tasks: deque[BatchTask] = deque()
    try:
        while True:
            task: BatchTask = tasks.popleft() if tasks else channel.receive()
            begun = batches.begun(task)
            while wait([tasks_in], 0):
                tasks.append(channel.receive())
                batches.announce(tasks[-1])
            _send_answer(channel, batches.made(task, begun, tasks[0] if tasks else None))
            progress.step()
    except (EOFError, ConnectionError):
        return


def _settle() -> None:
    """Limit OpenCV and torch to one thread, and raise the limit of open files as far as the system allows."""
    if (cv2 := sys.modules.get("cv2")) is not None:
        cv2.setNumThreads(1)
    os.environ["OPENCV_FOR_THREADS_NUM"] = "1"  # for OpenCV, in case it is imported later
    if "torch" in sys.modules:
        torch.set_num_threads(1)
    else:
        keep_arrays()
        os.environ["OMP_NUM_THREADS"] = "1"  # for torch, in case something needs it after all
    with suppress(ImportError, ValueError, OSError):  # the limit also applies to files that are sent but not received
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _send_answer(channel: Channel, answer: object) -> None:
    try:
        channel.send(answer)
    except ConnectionError:
        raise
    except Exception as error:  # the batch cannot be pickled, or memory is exhausted
        channel.send(Failed(make_picklable(error), traceback.format_exc()))


class _Batches(Generic[RequestT, DraftT, HostT]):
    """Creates a task's batch while threads start the next one; ranges of later batches are announced."""

    def __init__(self, maker: BatchMaker[RequestT, DraftT, HostT], threads: int, progress: WorkerProgress) -> None:
        self._maker, self._progress = maker, progress
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="maskstream")
        self._begun: Begun[DraftT] | None = None
        self._drawn: dict[tuple[int, int], Announced[RequestT]] = {}

    def begun(self, task: BatchTask) -> Begun[DraftT] | Failed:
        """Return a task's batch with rows being filled, or the error."""
        ahead, self._begun = self._begun, None
        try:
            return ahead or self._start(task)
        except Exception as error:
            return _make_failure(error)

    def announce(self, task: BatchTask) -> None:
        """Draw the requests of a later task; a batch that has started already has them."""
        number = task.plan.number
        if task.row_by_row or number in self._drawn:
            return
        if (drawn := self._maker.draw_ahead(task.plan)) is not None:
            self._drawn[number] = drawn

    def made(self, task: BatchTask, begun: Begun[DraftT] | Failed, then: BatchTask | None) -> Made[HostT] | Failed:
        """Return the host batch, or the error; `then` is the next task, if known."""
        if isinstance(begun, Failed):
            return begun
        if then is not None and not task.alone and not then.alone:
            with suppress(Exception):  # raised when that batch is created
                self._begun = self._start(then)
        try:
            return self._maker.join(task.plan, begun)
        except Exception as error:
            return _make_failure(error)

    def _start(self, task: BatchTask) -> Begun[DraftT]:
        pool = _RowByRow(self._progress) if task.row_by_row else self._pool
        drawn = self._drawn.pop(task.plan.number, None)
        begun = self._maker.start(pool, task.plan, drawn, row_by_row=task.row_by_row)
        for rows in begun.rows:
            rows.add_done_callback(self._progress.step)
        return begun


def _make_failure(error: Exception) -> Failed:
    return (
        Failed(error) if isinstance(error, MaskstreamError) else Failed(make_picklable(error), traceback.format_exc())
    )


class _RowByRow(InCaller):
    """Executor that fills each row immediately in the calling thread, and records which."""

    def __init__(self, progress: WorkerProgress) -> None:
        self._progress, self._rows = progress, 0

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run the call and return a finished future with its result or error."""
        self._progress.begin(self._rows)
        self._rows += 1
        done = super().submit(fn, *args, **kwargs)
        self._progress.begin(None)
        return done


@dataclass(frozen=True, slots=True)
class SampleNames(Generic[RequestT, DraftT, HostT]):
    """Names the samples of plans for error messages."""

    sampler: Sampler[RequestT, DraftT, HostT]

    def error(self, plan: BatchPlan, row: int | None, how: str) -> WorkerDiedError:
        """Build the error for a batch.

        Args:
            plan: Plan of the batch.
            row: Row that the last process was filling.
            how: How that process ended.
        """
        epoch, batch = plan.number
        wanted = plan.each() if row is None else [plan.part(slice(row, row + 1))]
        what = "its samples are" if row is None else "it made one sample after the other and did not finish"
        return WorkerDiedError(
            f"several worker processes died while they made batch {batch} of epoch {epoch}; the last one {how}; {what} "
            f"{self._names(wanted)}. If a sample crashes its decoder (SIGSEGV), make the shards without it; if memory "
            "ran out (SIGKILL), use fewer workers or threads; if a batch takes longer, raise worker_timeout"
        )

    def _names(self, wanted: list[Wanted]) -> str:
        keys: defaultdict[str, list[str]] = defaultdict(list)
        for one in wanted:
            shard, key = self._name(one)
            keys[shard].append(key)
        return "; ".join(f"{', '.join(map(repr, own))} in {shard}" for shard, own in keys.items())

    def _name(self, wanted: Wanted) -> tuple[str, str]:
        """Return the shard and key of a sample."""
        try:
            request = self.sampler.request(wanted)
        except SampleError as error:
            return error.shard, error.key
        return next((part.name for part in request.ranges), "no shard"), request.keys[0]
