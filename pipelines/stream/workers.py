"""Persistent worker processes, which receive the plan of each batch that they make.

They are the workers of a PyTorch DataLoader, so batches return through shared memory that is unlinked once it is open.
A worker knows nothing of epochs: each task holds its plan, and the DataLoader takes batches from its workers in turn.
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
"""The plan of the batch to make now, and the plan of the same worker's next batch, if any."""


class WorkerPool(Generic[HostT]):
    """`workers` spawned processes with `threads` threads each; each worker makes up to `prefetch` batches ahead."""

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
        """Yields the host batches of the plans in order. A new call ends the earlier one and keeps the processes."""
        self._tasks.plans = plans
        if not self._all_alive():
            self.close()
        made = self._started()
        while (item := self._received(made)) is not None:
            if isinstance(item, MaskstreamError):
                raise item
            yield item

    def _started(self) -> Iterator[Any]:
        """Starts an iteration, and the processes if there are none.

        SIGTERM and SIGINT are blocked while the processes start, so that an early signal does not end them; from then
        on they ignore both, and `terminate` sends SIGKILL.
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
        """The next item, or None at the end; raises MainModuleError if workers cannot import what the maker needs."""
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
    """Closes all pools at exit, while PyTorch can still stop its workers."""
    for pool in list(_POOLS):
        pool.close()


class _Tasks(Sampler[_Task]):
    """Pairs each plan with the plan `workers` later: worker i gets the tasks i, i + workers, ..."""

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
    """Runs in a worker: makes the requested batch while its threads begin the next one."""

    def __init__(self, maker: BatchMaker[RequestT, DraftT, HostT], threads: int) -> None:
        self._maker, self._threads = maker, threads
        self._pool: ThreadPoolExecutor | None = None
        self._begun: tuple[tuple[int, int], Begun[DraftT]] | None = None

    def __getitem__(self, task: _Task) -> Made[HostT] | MaskstreamError:
        """The host batch and its stats. A MaskstreamError is returned, so that the parent can raise it unchanged."""
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
        """The batch that was begun ahead if it belongs to this plan; any other (after a seek) is cancelled."""
        ahead, self._begun = self._begun, None
        if ahead is None or ahead[0] == plan.number:
            return ahead and ahead[1]
        for row in ahead[1].rows:
            row.cancel()
        return None


def _unchanged(item: Any) -> Any:
    return item


def _begin_worker(worker: int) -> None:
    """Sets up a worker: OpenCV uses one thread, and the worker ends when its parent says so or dies.

    Schedulers and terminals send SIGTERM and SIGINT to every process of a job. The worker ignores them, because the
    parent may need more batches before a last checkpoint. At its end the worker calls `os._exit`, since destructors of
    native libraries can abort a process whose threads are still running.
    """
    import cv2

    cv2.setNumThreads(1)
    for number in _OF_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)
    Finalize(None, os._exit, args=(0,), exitpriority=_AFTER_ALL_OTHERS)
    end_with_parent()
