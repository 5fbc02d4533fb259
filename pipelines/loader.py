"""The loader of every modality: order to samples to batches, in threads or in worker processes, with a state that
resumes.

A modality brings a sampler (`make(index, epoch)` and `collate(samples)`); order, position, ranks, workers and
replacement of bad samples are here, once.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, overload

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..shards.errors import ResumeError, SampleError
from .order import Int64Array, Order, rank_share
from .rng import sample_rng
from .stats import Stats

log = logging.getLogger(__name__)

BatchT = TypeVar("BatchT")
BatchT_co = TypeVar("BatchT_co", covariant=True)
_TRIES = 16
_LEAST_SEEN = 100  # samples before a fraction of them means something


class Sampler(Protocol[BatchT_co]):
    """What a modality brings. Samples have a `stats` attribute; `make` raises SampleError for one that cannot be
    used.
    """

    seed: int

    def make(self, index: int, epoch: int) -> Any: ...

    def collate(self, samples: list[Any]) -> BatchT_co: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlan:
    """The samples of one rank's batch: indexes into the manifest, and the weight of each (0 marks padding)."""

    epoch: int
    indexes: Int64Array
    weight: np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochPlans(Sequence[BatchPlan]):
    """A rank's plans for batches `batches` of an epoch whose order is `order`; each is made when it is asked for."""

    epoch: int
    order: Int64Array
    global_batch: int
    rank: int
    world_size: int
    batches: range

    def __len__(self) -> int:
        return len(self.batches)

    @overload
    def __getitem__(self, i: int) -> BatchPlan: ...

    @overload
    def __getitem__(self, i: slice) -> EpochPlans: ...

    def __getitem__(self, i: int | slice) -> BatchPlan | EpochPlans:
        if isinstance(i, slice):
            return replace(self, batches=self.batches[i])
        at = self.batches[i] * self.global_batch
        indexes, weight = rank_share(self.order[at : at + self.global_batch], self.rank, self.world_size)
        return BatchPlan(epoch=self.epoch, indexes=indexes, weight=weight)


class Loader(Generic[BatchT]):
    """Batches of one rank, one epoch an iteration, in the same order at every topology.

    Iterating goes on from the current position (epoch, batch), which counts the batches handed out: after a `break`
    the next loop continues where the last one stopped, and `state_dict()` taken at any time resumes with the very
    next batch. `seek(epoch)` goes elsewhere. Batches come from `threads` threads here, or in each of `workers`
    processes.
    """

    def __init__(
        self,
        sampler: Sampler[BatchT],
        order: Order,
        fingerprint: str,
        *,
        rank: int,
        world_size: int,
        workers: int,
        threads: int,
        prefetch: int,
        max_bad_fraction: float,
        device: torch.device,
    ) -> None:
        self._sampler = sampler
        self._order = order
        self._fingerprint = fingerprint
        self._rank, self._world_size = rank, world_size
        self._workers, self._threads, self._prefetch = workers, threads, prefetch
        self._max_bad_fraction = max_bad_fraction
        self._device = device
        self._epoch, self._batch = 0, 0
        self._stats = Stats()

    def __len__(self) -> int:
        """Batches in an epoch, the same on every rank."""
        return self._order.n_batches

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to."""
        return self._epoch

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Makes batch `batch` of epoch `epoch` the next one."""
        if epoch < 0 or not 0 <= batch < max(len(self), 1):
            raise ValueError(f"epoch {epoch}, batch {batch}: epochs count from 0, batches from 0 to {len(self) - 1}")
        self._epoch, self._batch = epoch, batch

    def state_dict(self) -> dict[str, Any]:
        """The position, JSON-able and the same on every rank; another world size or worker count may load it."""
        return {**self._identity(), "epoch": self._epoch, "batch": self._batch}

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
                "this position cannot be continued exactly ("
                + "; ".join(wrong)
                + "). Use the same dataset, seed, lanes, block and "
                "batch_size x world_size, or start a new run"
            )
        self._epoch, self._batch = int(state["epoch"]), int(state["batch"])

    def stats(self) -> dict[str, object]:
        """Counts and seconds per stage since the loader was made (see Stats), and the threads that made the samples."""
        return {**self._stats.as_dict(), "threads": self._threads * max(self._workers, 1)}

    def _identity(self) -> dict[str, Any]:
        order = self._order
        return {
            "seed": order.seed,
            "global_batch": order.global_batch,
            "lanes": order.lanes,
            "block": order.block,
            "shuffle": order.shuffle,
            "dataset": self._fingerprint,
        }

    def __iter__(self) -> Iterator[BatchT]:
        producer = _Producer(self._sampler, self._plans(), self._order.n_samples, self._threads, self._prefetch)
        source: Iterator[tuple[BatchT, Stats]]
        if self._workers:
            source = iter(
                DataLoader(
                    _WorkerBatches(producer),
                    batch_size=None,
                    num_workers=self._workers,
                    prefetch_factor=self._prefetch,
                    multiprocessing_context="spawn",
                    worker_init_fn=_one_thread_each,
                    collate_fn=_unchanged,
                )
            )
        else:
            source = producer.batches()
        for _ in range(self._batch, len(self)):
            with self._stats.stage("wait"):
                batch, stats = next(source)
            self._stats.add(stats)
            self._check_bad()
            self._batch += 1
            if self._batch == len(self):
                self._epoch, self._batch = self._epoch + 1, 0
            with self._stats.stage("copy"):
                batch = self._to_device(batch)
            left = time.perf_counter()
            yield batch
            self._stats.seconds["consumer"] += time.perf_counter() - left

    def _plans(self) -> EpochPlans:
        return EpochPlans(
            epoch=self._epoch,
            order=self._order.epoch(self._epoch),
            global_batch=self._order.global_batch,
            rank=self._rank,
            world_size=self._world_size,
            batches=range(self._batch, len(self)),
        )

    def _to_device(self, batch: BatchT) -> BatchT:
        if self._device.type == "cpu":
            return batch
        pinned: BatchT = batch.pin_memory().to(self._device, non_blocking=True)  # type: ignore[attr-defined]
        return pinned

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


class _Producer(Generic[BatchT]):
    """Makes the batches of some plans in threads, in order, a few batches ahead of the consumer."""

    def __init__(
        self, sampler: Sampler[BatchT], plans: Sequence[BatchPlan], n_samples: int, threads: int, prefetch: int
    ) -> None:
        self.sampler, self.plans, self.n_samples = sampler, plans, n_samples
        self.threads, self.prefetch = threads, prefetch

    def share(self, worker: int, workers: int) -> _Producer[BatchT]:
        return _Producer(self.sampler, self.plans[worker::workers], self.n_samples, self.threads, self.prefetch)

    def batches(self) -> Iterator[tuple[BatchT, Stats]]:
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="maskstream")
        finisher = ThreadPoolExecutor(1, thread_name_prefix="maskstream-batch")
        try:
            ahead: deque[Future[tuple[BatchT, Stats]]] = deque()
            plans = iter(self.plans)
            while True:
                while len(ahead) < self.prefetch and (plan := next(plans, None)) is not None:
                    samples = [pool.submit(self._sample, int(i), plan.epoch) for i in plan.indexes]
                    ahead.append(finisher.submit(self._finish, plan, samples))
                if not ahead:
                    return
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            finisher.shutdown(wait=True, cancel_futures=True)

    def _sample(self, index: int, epoch: int) -> tuple[Any, int]:
        """The sample, or the next one in its reserve order that can be used, and how many could not."""
        rng = None
        for bad in range(_TRIES):
            try:
                return self.sampler.make(index, epoch), bad
            except SampleError as error:
                log.warning("replaced %s", error)
                last = error
                rng = rng or sample_rng(self.sampler.seed, epoch, str(index), 0, "reserve")
                index = int(rng.integers(self.n_samples))
        raise last

    def _finish(self, plan: BatchPlan, samples: list[Future[tuple[Any, int]]]) -> tuple[BatchT, Stats]:
        stats = Stats()
        made = [sample.result() for sample in samples]
        for sample, bad in made:
            stats.add(sample.stats)
            stats.bad += bad
        with stats.stage("collate"):
            batch = self.sampler.collate([sample for sample, _ in made])
        if not plan.weight.all():
            batch = batch.weighted(torch.from_numpy(plan.weight))  # type: ignore[attr-defined]
        return batch, stats


class _WorkerBatches(IterableDataset[Any]):
    """The share of a worker process: every workers-th batch, so that taking them in turn gives the order back."""

    def __init__(self, producer: _Producer[Any]) -> None:
        self.producer = producer

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        if info is None:
            return self.producer.batches()
        return self.producer.share(info.id, info.num_workers).batches()


def _unchanged(item: Any) -> Any:
    return item


def _one_thread_each(worker: int) -> None:
    """A worker's parallelism is its decoding threads; libraries add none of their own."""
    import cv2

    cv2.setNumThreads(1)


def default_threads(workers: int) -> int:
    """Decoding threads of a process: the cores that this process may use, shared by its workers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(workers, 1))
