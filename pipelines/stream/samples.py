"""The order of samples: `Samples` have no batch size yet, `BatchOrder` has one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .order import GlobalBatch, Order, Weights


class BatchOrder(Protocol):
    """The order of batches, a pure function of its settings: `Order` for one dataset, `MixOrder` for several.

    batches(epoch, first): the global batches of an epoch from number `first` on. reserve: a random sample of the same
    dataset, to replace the unusable sample `index`. identity (the settings) and position: the saved state, JSON-able.
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
    """Reads an endless stream. take(begin, end): its samples [begin, end); fastest for increasing numbers."""

    def take(self, begin: int, end: int) -> GlobalBatch: ...


class Stream(Protocol):
    """An endless stream of samples, which mixtures and token budgets cut into batches of their own.

    n_samples: the number of different samples; all of them come before any comes again.
    """

    @property
    def n_samples(self) -> int: ...

    def reader(self) -> Reader: ...

    def reserve(self, index: int, rng: np.random.Generator) -> int: ...

    def identity(self) -> dict[str, Any]: ...


class Samples(Protocol):
    """The samples of a source, before a batch size is chosen.

    order: the batches of `global_batch` samples over all ranks. stream: the endless stream; raises ValueError with
    several lanes or without shuffling. What changes over the run needs its length, in batches or in samples.
    """

    @property
    def n_samples(self) -> int: ...

    @property
    def shuffle(self) -> bool: ...

    def order(self, global_batch: int, steps: int | None = None) -> BatchOrder: ...

    def stream(self, samples: int | None = None) -> Stream: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSamples:
    """The samples of one split; the settings are those of `Order`."""

    shard_sizes: tuple[int, ...]
    seed: int = 0
    lanes: int = 1
    block: int | None = None
    shuffle: bool = True
    weights: Weights | None = None

    @property
    def n_samples(self) -> int:
        """The number of samples of the split."""
        return sum(self.shard_sizes)

    def order(self, global_batch: int, steps: int | None = None) -> Order:
        """The order of batches of `global_batch` samples, the same at any length of the run."""
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
        """The samples one by one, without end; raises ValueError unless shuffled in one lane."""
        if not self.shuffle or self.lanes > 1:
            raise ValueError(
                f"mixtures and token budgets need an endless stream, got shuffle={self.shuffle} and "
                f"lanes={self.lanes}; use shuffle=True and lanes=1"
            )
        return self.order(1)
