"""Interfaces of sample orders: `Samples` have no batch size yet, `BatchOrder` has one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .order import GlobalBatch, Order, Weights


class BatchOrder(Protocol):
    """Order of batches, a pure function of its settings: `Order` for one dataset, `MixOrder` for several.

    `batches(epoch, first)` yields the global batches of an epoch from number `first` on. `reserve` returns a random
    sample of the same dataset, to replace an unusable one. `identity` (the settings) and `position` form the JSON-able
    saved state.
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


class Reader(Protocol):
    """Reader of an endless stream. `take(begin, end)` returns its samples [begin, end); fastest for
    increasing numbers.
    """

    def take(self, begin: int, end: int) -> GlobalBatch: ...


class Stream(Protocol):
    """Endless stream of samples, from which mixtures and token budgets form batches.

    `n_samples` is the number of distinct samples; all of them appear before any repeats.
    """

    @property
    def n_samples(self) -> int: ...

    def reader(self) -> Reader: ...

    def reserve(self, index: int, rng: np.random.Generator) -> int: ...

    def identity(self) -> dict[str, Any]: ...


class Samples(Protocol):
    """Samples of a source before a batch size is chosen.

    `order` returns batches of `global_batch` samples over all ranks. `stream` returns the endless stream, or raises
    ValueError with several lanes or without shuffling. If something changes over the run, both need its length, in
    batches or in samples.
    """

    @property
    def n_samples(self) -> int: ...

    @property
    def shuffle(self) -> bool: ...

    def order(self, global_batch: int, steps: int | None = None) -> BatchOrder: ...

    def stream(self, samples: int | None = None) -> Stream: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSamples:
    """Samples of one split, with the settings of `Order`."""

    shard_sizes: tuple[int, ...]
    seed: int = 0
    lanes: int = 1
    block: int | None = None
    shuffle: bool = True
    weights: Weights | None = None

    @property
    def n_samples(self) -> int:
        """Number of samples of the split."""
        return sum(self.shard_sizes)

    def order(self, global_batch: int, steps: int | None = None) -> Order:
        """Return the order of batches of `global_batch` samples, independent of the length of the run."""
        return Order(
            shard_sizes=self.shard_sizes,
            global_batch=global_batch,
            seed=self.seed,
            lanes=self.lanes,
            block=self.block,
            shuffle=self.shuffle,
            weights=self.weights,
        )

    def stream(self, samples: int | None = None) -> Order:
        """Return the endless stream of samples.

        Raises:
            ValueError: The split is not shuffled or has several lanes.
        """
        if not self.shuffle or self.lanes > 1:
            raise ValueError(
                f"mixtures and token budgets need an endless stream, got shuffle={self.shuffle} and "
                f"lanes={self.lanes}; use shuffle=True and lanes=1"
            )
        return self.order(1)
