"""From plans to batches: what a batch holds is decided by its plan; threads make its samples."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from ...shards.errors import SampleError
from .one_thread import compute_alone
from .order import GlobalBatch, Int64Array, rank_share
from .place import Place, progress_of
from .rng import sample_rng
from .stats import Stats

log = logging.getLogger(__name__)

BatchT = TypeVar("BatchT")
BatchT_co = TypeVar("BatchT_co", covariant=True)
_TRIES = 16

Made = tuple[Any, int]
"""A sample, and how many before it could not be used."""


class Sampler(Protocol[BatchT_co]):
    """What a modality brings. Samples have a `stats` attribute; `make` raises SampleError for one that cannot be
    used. needs_progress: whether what it makes changes over the run.
    """

    @property
    def seed(self) -> int: ...

    @property
    def needs_progress(self) -> bool: ...

    def make(self, index: int, epoch: int, place: Place) -> Any: ...

    def collate(self, samples: list[Any]) -> BatchT_co: ...


@runtime_checkable
class PreparingSampler(Protocol):
    """A sampler that does something for all samples of a batch at once, before they are made; its `make` takes each
    one's part of it as a fourth argument. What is done sample after sample stays in the processor's cache, which
    decoding would displace.
    """

    def prepare(self, samples: list[tuple[int, int, Place]]) -> list[Any]: ...


class BatchOrder(Protocol):
    """What comes when: `Order` for one dataset, `MixOrder` for several. A pure function of its settings.

    batches(epoch, first) are the global batches of an epoch from number `first` on; reserve is another sample in place
    of `index`, of the same dataset; identity (what it depends on) and position are a saved state, JSON-able.
    """

    @property
    def n_batches(self) -> int: ...

    @property
    def global_batch(self) -> int: ...

    @property
    def shuffle(self) -> bool: ...

    def batches(self, epoch: int, first: int = 0) -> Iterator[GlobalBatch]: ...

    def reserve(self, index: int, rng: np.random.Generator) -> int: ...

    def identity(self) -> dict[str, Any]: ...

    def position(self, epoch: int, batch: int) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlan:
    """One rank's part of global batch `number` = (epoch, batch): of each of its samples the index, the epoch, the place
    in the run, and the weight, float32 (B,), 0 for padding.
    """

    number: tuple[int, int]
    indexes: Int64Array
    epochs: Int64Array
    places: list[Place]
    weight: npt.NDArray[np.float32]


def plans(
    order: BatchOrder,
    epoch: int,
    first: int,
    rank: int,
    world_size: int,
    *,
    endless: bool = False,
    steps: int | None = None,
) -> Iterator[BatchPlan]:
    """A rank's plans of an epoch from batch `first` on, and with `endless` those of all epochs after it; each is made
    when it is asked for. `steps` is the length of the run in batches, which progress is measured by.
    """
    while True:
        for b, whole in enumerate(order.batches(epoch, first), start=first):
            mine, weight = rank_share(np.arange(len(whole.indexes)), rank, world_size)
            step = epoch * order.n_batches + b
            progress = progress_of(step, steps)
            yield BatchPlan(
                number=(epoch, b),
                indexes=whole.indexes[mine],
                epochs=whole.epochs[mine],
                places=[Place(step=step, row=r, rows=len(whole.indexes), progress=progress) for r in mine.tolist()],
                weight=weight,
            )
        if not endless or order.n_batches == 0:
            return
        epoch, first = epoch + 1, 0


@dataclass(frozen=True, kw_only=True)
class BatchMaker(Generic[BatchT]):
    """Makes the batch of a plan; holds settings only, so that it can be sent to worker processes."""

    sampler: Sampler[BatchT]
    order: BatchOrder

    def start(self, pool: Executor, plan: BatchPlan) -> list[Future[Made]]:
        """Hands the samples of a batch to `pool`."""
        samples = list(zip(plan.indexes.tolist(), plan.epochs.tolist(), plan.places, strict=True))
        if isinstance(self.sampler, PreparingSampler):
            prepared = self.sampler.prepare(samples)
            return [pool.submit(self._sample, *sample, (part,)) for sample, part in zip(samples, prepared, strict=True)]
        return [pool.submit(self._sample, *sample, ()) for sample in samples]

    def finish(self, plan: BatchPlan, samples: list[Future[Made]]) -> tuple[BatchT, Stats]:
        """The batch and what it cost, once its samples are there."""
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

    def _sample(self, index: int, epoch: int, place: Place, prepared: tuple[Any, ...]) -> Made:
        """The sample, or the next one in its reserve order that can be used, and how many could not."""
        rng = None
        for bad in range(_TRIES):
            try:
                return self.sampler.make(index, epoch, place, *prepared), bad
            except SampleError as error:
                log.warning("replaced %s", error)
                last = error
                rng = rng or sample_rng(self.sampler.seed, epoch, str(index), 0, "reserve")
                index = self.order.reserve(index, rng)
        raise last


def batches_from_threads(
    maker: BatchMaker[BatchT], wanted: Iterable[BatchPlan], threads: int, prefetch: int
) -> Generator[tuple[BatchT, Stats]]:
    """The batches of some plans in their order, made by threads of this process `prefetch` batches ahead."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="maskstream", initializer=compute_alone)
    finisher = ThreadPoolExecutor(1, thread_name_prefix="maskstream-batch")
    try:
        ahead: deque[Future[tuple[BatchT, Stats]]] = deque()
        plans_left = iter(wanted)
        while True:
            while len(ahead) < prefetch and (plan := next(plans_left, None)) is not None:
                ahead.append(finisher.submit(maker.finish, plan, maker.start(pool, plan)))
            if not ahead:
                return
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        finisher.shutdown(wait=True, cancel_futures=True)
