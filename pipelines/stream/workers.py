"""Worker processes that stay from epoch to epoch and are told batch by batch what to make.

They are PyTorch's (a DataLoader's), so batches come back through shared memory that has no name left once it is open.
The plans travel with the requests: a worker knows nothing of epochs, and the order is the DataLoader's, which takes
from its workers in turn.
"""

from __future__ import annotations

import atexit
import os
import signal
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.util import Finalize
from typing import Any, Generic

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ...shards.errors import MaskstreamError
from ...shards.spawn import MAIN_FAILED, SPAWN, end_with_parent, main_failed
from .produce import BatchMaker, BatchPlan, Begun, Made
from .sampler import DraftT, HostT, RequestT

_AFTER_ALL_OTHERS = -100
_OF_THE_PARENT = (signal.SIGTERM, signal.SIGINT)

_Task = tuple[BatchPlan, BatchPlan | None]
"""The batch to make now, and the one that the same worker is going to be asked for next."""


class WorkerPool(Generic[HostT]):
    """`workers` spawned processes with `threads` threads each, which make batches up to `prefetch` ahead per worker."""

    def __init__(
        self, maker: BatchMaker[RequestT, DraftT, HostT], *, workers: int, threads: int, prefetch: int
    ) -> None:
        _POOLS.add(self)
        self._tasks = _Tasks(workers)
        self._loader: DataLoader[Any] = DataLoader(
            _Batches(maker, threads),
            batch_size=None,
            sampler=self._tasks,
            num_workers=workers,
            prefetch_factor=prefetch,
            persistent_workers=True,
            multiprocessing_context=SPAWN,
            worker_init_fn=_begin_worker,
            collate_fn=_unchanged,
            generator=torch.Generator(),
        )

    def batches(self, plans: Iterable[BatchPlan]) -> Generator[Made[HostT]]:
        """The batches of the plans in their order. Calling it again ends the earlier iteration; the processes stay."""
        self._tasks.plans = plans
        if not self._all_alive():
            self.close()
        made = self._started()
        while (item := self._received(made)) is not None:
            if isinstance(item, MaskstreamError):
                raise item
            yield item

    def _started(self) -> Iterator[Any]:
        """Begins to iterate, with new processes where there are none. They are born with SIGTERM and Ctrl-C blocked, so
        that one which comes at once is no end either, and what ends them from here on is SIGKILL.
        """
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_PARENT)
        try:
            made = iter(self._loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for worker in self._loader._iterator._workers:  # type: ignore[union-attr]
            worker._popen.terminate = worker._popen.kill
        return made

    def _received(self, made: Iterator[Any]) -> Any:
        """The next item, or None at the end; MainModuleError where the workers cannot import what the maker needs."""
        try:
            return next(made, None)
        except (ConnectionError, EOFError, FileNotFoundError, RuntimeError) as error:
            for worker in getattr(self._loader._iterator, "_workers", ()):
                if worker.exitcode == MAIN_FAILED:
                    raise main_failed(worker.names) from None
            if isinstance(error, RuntimeError):
                raise
            raise RuntimeError(
                f"a worker process exited unexpectedly while it handed over a batch ({error})"
            ) from error

    def _all_alive(self) -> bool:
        iterator: Any = self._loader._iterator
        return iterator is None or all(worker.is_alive() for worker in iterator._workers)

    def close(self) -> None:
        """Ends the processes."""
        iterator: Any = self._loader._iterator
        if iterator is not None:
            self._loader._iterator = None
            iterator._shutdown_workers()


_POOLS: weakref.WeakSet[WorkerPool[Any]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Where nobody closed a loader, its workers end here, while PyTorch can still tell them to."""
    for pool in list(_POOLS):
        pool.close()


class _Tasks(Sampler[_Task]):
    """Plans as tasks: worker i gets tasks i, i + workers, ..., so a task names the one that comes `workers` later."""

    def __init__(self, workers: int) -> None:
        self.plans: Iterable[BatchPlan] = ()
        self._workers = workers

    def __iter__(self) -> Iterator[_Task]:
        ahead: deque[BatchPlan] = deque()
        for plan in self.plans:
            ahead.append(plan)
            if len(ahead) > self._workers:
                yield ahead.popleft(), plan
        for plan in ahead:
            yield plan, None


class _Batches(Dataset[Any], Generic[RequestT, DraftT, HostT]):
    """In a worker: makes the batch that is asked for while its threads begin the next one."""

    def __init__(self, maker: BatchMaker[RequestT, DraftT, HostT], threads: int) -> None:
        self._maker, self._threads = maker, threads
        self._pool: ThreadPoolExecutor | None = None
        self._begun: tuple[tuple[int, int], Begun[DraftT]] | None = None

    def __getitem__(self, task: _Task) -> Made[HostT] | MaskstreamError:
        """The batch and what it cost; an error of the tree of MaskstreamError comes as a value, to be raised as what it
        is on the other side.
        """
        plan, then = task
        self._pool = self._pool or ThreadPoolExecutor(self._threads, thread_name_prefix="maskstream")
        begun = self._taken(plan) or self._maker.start(self._pool, plan)
        if then is not None:
            self._begun = (then.number, self._maker.start(self._pool, then))
        try:
            return self._maker.join(plan, begun)
        except MaskstreamError as error:
            return error

    def _taken(self, plan: BatchPlan) -> Begun[DraftT] | None:
        """The batch that was begun ahead, if it is this plan's; another one (after a jump) is dropped."""
        ahead, self._begun = self._begun, None
        if ahead is None or ahead[0] == plan.number:
            return ahead and ahead[1]
        for row in ahead[1].rows:
            row.cancel()
        return None


def _unchanged(item: Any) -> Any:
    return item


def _begin_worker(worker: int) -> None:
    """A worker's parallelism is its decoding threads; it ends when its parent says so, or with its parent.

    SIGTERM and Ctrl-C, which schedulers and terminals send to every process of a job, are the parent's to handle: it
    may want more batches before a last checkpoint. When a worker has sent all, it leaves at once: destructors of native
    libraries that run while their threads still do can abort a process that has done its work.
    """
    import cv2

    cv2.setNumThreads(1)
    for number in _OF_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)
    Finalize(None, os._exit, args=(0,), exitpriority=_AFTER_ALL_OTHERS)
    end_with_parent()
