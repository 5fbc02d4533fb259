"""The loader of every modality: order to samples to batches, in threads or in worker processes, with a state that
resumes.

A modality brings a sampler (`make(index, epoch)` and `collate(samples)`); position, ranks, workers and the end of all
of them are here, once. What a batch holds is in produce.py, the processes are in workers.py.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from typing import Any, Generic, Self

import torch

from ...shards.errors import ResumeError, SampleError
from .order import ORDER_VERSION
from .produce import BatchMaker, BatchOrder, BatchT, Sampler, batches_from_threads, plans
from .stats import Stats
from .torch_dataset import BatchDataset
from .transfer import on_device
from .workers import WorkerPool

_LEAST_SEEN = 100  # samples before a fraction of them means something

_RUNNING: weakref.WeakSet[Generator[Any]] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Iterations that were left in the middle end here, while the modules that their threads need are still there."""
    for iteration in list(_RUNNING):
        with suppress(ValueError):  # another thread is inside it
            iteration.close()


class Loader(Generic[BatchT]):
    """Batches of one rank, one epoch an iteration, in the same order at every topology.

    Iterating goes on from the current position (epoch, batch), which counts the batches handed out: after a `break`
    the next loop continues where the last one stopped, and `state_dict()` taken at any time resumes with the very
    next batch. `seek(epoch)` goes elsewhere, `repeat()` never ends. Batches come from `threads` threads here, or in
    each of `workers` processes, which stay until the loader goes or `close()` is called.

    A loader has one position, so it has one iteration at a time: after `seek`, `load_state_dict` or the start of
    another loop an earlier one raises RuntimeError. Errors of a sample are SampleError, wherever it was made.

    `steps` is the length of the run in batches, for masks whose ratio changes over it; what a batch holds is then a
    function of its number and of `steps`, and never of who asks for it.
    """

    def __init__(
        self,
        sampler: Sampler[BatchT],
        order: BatchOrder,
        fingerprint: str,
        *,
        rank: int,
        world_size: int,
        workers: int,
        threads: int,
        prefetch: int,
        max_bad_fraction: float,
        device: torch.device,
        steps: int | None = None,
    ) -> None:
        if order.shuffle and order.global_batch % world_size:
            raise ValueError(_indivisible(order.global_batch, world_size))
        self.sampler = sampler
        self.order = order
        self.fingerprint = fingerprint
        self.world_size = world_size
        self.steps = steps
        self._rank = rank
        self._workers, self._threads, self._prefetch = workers, threads, prefetch
        self._max_bad_fraction = max_bad_fraction
        self._device = device
        self._epoch, self._batch = 0, 0
        self._iteration = 0
        self._stats = Stats()
        self._pool: WorkerPool[BatchT] | None = None

    def __len__(self) -> int:
        """Batches in an epoch, the same on every rank."""
        return self.order.n_batches

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to."""
        return self._epoch

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Makes batch `batch` of epoch `epoch` the next one."""
        if epoch < 0 or not 0 <= batch < max(len(self), 1):
            raise ValueError(f"epoch {epoch}, batch {batch}: epochs count from 0, batches from 0 to {len(self) - 1}")
        self._epoch, self._batch = epoch, batch
        self._iteration += 1

    def state_dict(self) -> dict[str, Any]:
        """The position, JSON-able and the same on every rank; another world size or worker count may load it."""
        return {**self._identity(), **self.order.position(self._epoch, self._batch)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved position; ResumeError where that cannot give the same batches."""
        mine = self._identity()
        wrong = [
            f"{name}: saved {state.get(name)!r}, here {value!r}"
            for name, value in mine.items()
            if state.get(name) != value
        ]
        if wrong:
            raise ResumeError(
                f"this position cannot be continued exactly ({'; '.join(wrong)}). {self._remedy(state)}, or start a "
                "new run"
            )
        self.seek(int(state["epoch"]), int(state["batch"]))

    def stats(self) -> dict[str, object]:
        """Counts and seconds per stage since the loader was made (see Stats), and the threads that made the samples."""
        return {**self._stats.as_dict(), "threads": self._threads * max(self._workers, 1)}

    def __iter__(self) -> Iterator[BatchT]:
        return self._begun(endless=False)

    def repeat(self) -> Iterator[BatchT]:
        """Batches without end, epoch after epoch, from the current position; nothing waits at the end of an epoch."""
        if len(self) == 0:
            raise ValueError("repeat() on a loader without a batch would never give one")
        return self._begun(endless=True)

    def as_dataset(self, convert: Callable[[BatchT], Any] | None = None, *, repeat: bool = False) -> BatchDataset:
        """The loader as an IterableDataset of batches, for `DataLoader(dataset, batch_size=None)`.

        convert: what becomes of a batch, such as a dict with the names of a model's arguments. repeat: without end.
        """
        return BatchDataset(self, convert, repeat)

    def close(self) -> None:
        """Ends the worker processes; the position stays, and iterating again starts new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def over(self, sampler: Sampler[BatchT], order: BatchOrder, fingerprint: str) -> Self:
        """A loader of other samples with this one's ranks, workers, threads and device, at the beginning."""
        return type(self)(
            sampler,
            order,
            fingerprint,
            rank=self._rank,
            world_size=self.world_size,
            workers=self._workers,
            threads=self._threads,
            prefetch=self._prefetch,
            max_bad_fraction=self._max_bad_fraction,
            device=self._device,
            steps=self.steps,
        )

    def _begun(self, *, endless: bool) -> Iterator[BatchT]:
        iteration = self._iterate(endless=endless)
        _RUNNING.add(iteration)
        return iteration

    def _iterate(self, *, endless: bool) -> Generator[BatchT]:
        self._iteration += 1
        mine = self._iteration
        with closing(self._made(endless)) as made, closing(on_device(made, self._device)) as source:
            while (item := self._next(source)) is not None:
                batch, stats = item
                self._stats.add(stats)
                self._check_bad()
                self._batch += 1
                if self._batch == len(self):
                    self._epoch, self._batch = self._epoch + 1, 0
                left = time.perf_counter()
                yield batch
                self._stats.seconds["consumer"] += time.perf_counter() - left
                if self._iteration != mine:
                    raise RuntimeError(
                        "this iteration is over: the loader was moved (seek, load_state_dict) or another loop over it "
                        "began; a loader has one position, so make a second loader for a second loop"
                    )

    def _made(self, endless: bool) -> Generator[tuple[BatchT, Stats]]:
        """The batches from the current position on, as threads or worker processes make them."""
        maker = BatchMaker(sampler=self.sampler, order=self.order)
        if self.sampler.needs_progress and self.steps is None:
            raise ValueError(
                "the mask's ratio changes over the run, so the loader has to know how long that is: give steps=, the "
                "number of batches from first to last"
            )
        wanted = plans(
            self.order, self._epoch, self._batch, self._rank, self.world_size, endless=endless, steps=self.steps
        )
        if not self._workers:
            return batches_from_threads(maker, wanted, self._threads, self._prefetch)
        if self._pool is None:
            self._pool = WorkerPool(maker, workers=self._workers, threads=self._threads, prefetch=self._prefetch)
        return self._pool.batches(wanted)

    def _next(self, source: Iterator[tuple[BatchT, Stats]]) -> tuple[BatchT, Stats] | None:
        """The next batch, or None at the end. After an error or Ctrl-C no worker process is left."""
        try:
            with self._stats.stage("wait"):
                return next(source, None)
        except BaseException:
            self.close()
            raise

    def _identity(self) -> dict[str, Any]:
        run = {"steps": self.steps} if self.sampler.needs_progress else {}
        return {**self.order.identity(), **run, "dataset": self.fingerprint}

    def _remedy(self, state: dict[str, Any]) -> str:
        if state.get("version") != ORDER_VERSION:
            return "Use the release of maskstream that saved it"
        saved = state.get("global_batch")
        if isinstance(saved, int) and saved != self.order.global_batch:
            if saved % self.world_size:
                return _indivisible(saved, self.world_size)
            return f"With {self.world_size} ranks use batch_size={saved // self.world_size}"
        return "Use the same dataset, seed, lanes, block, steps and batch_size x world_size"

    def _check_bad(self) -> None:
        bad, seen = self._stats.bad, self._stats.samples
        if bad > self._max_bad_fraction * max(seen, _LEAST_SEEN):
            raise SampleError(
                shard="this dataset",
                key="*",
                component="*",
                reason=f"{bad} of {seen} samples could not be read or decoded, more than "
                f"max_bad_fraction={self._max_bad_fraction} allows; the log names each, and `maskstream verify` says "
                "what is wrong with the shards",
            )


def _indivisible(global_batch: int, world_size: int) -> str:
    legal = [str(n) for n in range(1, global_batch + 1) if global_batch % n == 0]
    shown = ", ".join(legal if len(legal) < 12 else [*legal[:11], "..."])
    return f"A global batch of {global_batch} samples cannot be shared by {world_size} ranks evenly; use {shown} ranks"


def default_threads(workers: int) -> int:
    """Decoding threads of a process: the cores that this process may use, shared by its workers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(workers, 1))
