"""Which samples come in which order: before anything says how large a batch is, and after."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .order import GlobalBatch, Order


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


class Reader(Protocol):
    """Goes through an endless stream: take(begin, end) are its samples of these numbers, of rising ones best."""

    def take(self, begin: int, end: int) -> GlobalBatch: ...


class Stream(Protocol):
    """Samples one after the other without end, which mixtures and token budgets cut as they need.

    n_samples: how many different ones, which is how many come before any comes again.
    """

    @property
    def n_samples(self) -> int: ...

    def reader(self) -> Reader: ...

    def reserve(self, index: int, rng: np.random.Generator) -> int: ...

    def identity(self) -> dict[str, Any]: ...


class Samples(Protocol):
    """The samples of a source, whose batches have any size yet. order: the batches of so many samples over all ranks.

    stream: ValueError where they come side by side or once only.
    """

    @property
    def n_samples(self) -> int: ...

    @property
    def shuffle(self) -> bool: ...

    def order(self, global_batch: int) -> BatchOrder: ...

    def stream(self) -> Stream: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSamples:
    """Those of one split; the settings are those of `Order`."""

    shard_sizes: tuple[int, ...]
    seed: int = 0
    lanes: int = 1
    block: int | None = None
    shuffle: bool = True

    @property
    def n_samples(self) -> int:
        """All of them."""
        return sum(self.shard_sizes)

    def order(self, global_batch: int) -> Order:
        """The batches of so many samples."""
        return Order(
            shard_sizes=self.shard_sizes,
            global_batch=global_batch,
            seed=self.seed,
            lanes=self.lanes,
            block=self.block,
            shuffle=self.shuffle,
        )

    def stream(self) -> Order:
        """The samples one by one."""
        if not self.shuffle or self.lanes > 1:
            raise ValueError(
                "samples that come once, or in lanes side by side, are no endless stream to take any number of; use "
                "shuffle=True and lanes=1"
            )
        return self.order(1)
