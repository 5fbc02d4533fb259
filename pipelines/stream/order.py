"""The order of samples: a pure function of the dataset, the seed and the epoch, the same for every topology.

Shards are dealt to lanes once (balanced by samples); in each epoch a lane's shards are shuffled, grouped into blocks,
and the samples of a block shuffled. Global batch b takes the same number of samples from each lane, lane after lane,
so with as many lanes as nodes each node reads its own shards only; with one lane and one block the whole dataset is
shuffled.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .rng import sample_rng

Int64Array = npt.NDArray[np.int64]

ORDER_VERSION = 1
"""Of the order of samples and of what each of them shows (clip, crop, mask). It goes up when one of these changes for
the same seed: a saved position cannot be continued exactly then, and is refused.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobalBatch:
    """The samples of a batch over all ranks, int64 (G,), and the epoch that each is shown in, int64 (G,)."""

    indexes: Int64Array
    epochs: Int64Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """The order of a dataset whose shards hold `shard_sizes` samples each (sample indexes run through the shards in
    turn).

    global_batch: samples of a batch over all ranks. lanes: it must divide global_batch. block: shards whose samples are
    shuffled together, None for all of a lane. shuffle=False is the order for validation: every sample once, in the
    dataset's order, the last batch smaller.
    """

    shard_sizes: tuple[int, ...]
    global_batch: int
    seed: int = 0
    lanes: int = 1
    block: int | None = None
    shuffle: bool = True
    _dealt: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    _n_batches: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.global_batch < 1:
            raise ValueError(f"global batch of {self.global_batch} samples; it must be 1 or more")
        if self.lanes < 1 or self.global_batch % self.lanes:
            raise ValueError(f"{self.lanes} lanes do not divide the global batch of {self.global_batch} samples evenly")
        if self.lanes > max(len(self.shard_sizes), 1):
            raise ValueError(
                f"{self.lanes} lanes for {len(self.shard_sizes)} shards; at most one lane a shard is possible"
            )
        if self.block is not None and self.block < 1:
            raise ValueError(f"block of {self.block} shards; it must be 1 or more, or None for all of a lane")
        object.__setattr__(self, "_dealt", _dealt(self.shard_sizes, self.lanes))
        object.__setattr__(self, "_n_batches", self._count_batches())
        if self.shuffle and self.n_batches == 0:
            raise ValueError(
                f"{self.n_samples} samples do not fill one global batch of {self.global_batch}"
                + (f" from {self.lanes} lanes" if self.lanes > 1 else "")
                + "; lower batch_size, or pass shuffle=False to see every sample once"
            )

    @property
    def n_samples(self) -> int:
        return sum(self.shard_sizes)

    @property
    def n_batches(self) -> int:
        """Batches in an epoch: whole ones when shuffled, else as many as cover every sample."""
        return self._n_batches

    def epoch(self, epoch: int) -> Int64Array:
        """Sample indexes in the order of the epoch, batch after batch: int64, (n_batches * global_batch,) when
        shuffled.

        Which few samples are left out, because they do not fill a batch or make lanes uneven, changes with the epoch.
        """
        if not self.shuffle:
            return np.arange(self.n_samples, dtype=np.int64)
        share = self.global_batch // self.lanes
        n = self.n_batches
        starts = np.concatenate([[0], np.cumsum(self.shard_sizes, dtype=np.int64)])
        indexes = np.empty((n, self.lanes, share), dtype=np.int64)
        for lane in range(self.lanes):
            indexes[:, lane] = self._lane(starts, epoch, lane)[: n * share].reshape(n, share)
        return indexes.reshape(-1)

    def batches(self, epoch: int, first: int = 0) -> Iterator[GlobalBatch]:
        """The global batches of an epoch, from number `first` on; the last one of a validation may be smaller."""
        samples = self.epoch(epoch)
        for at in range(first * self.global_batch, len(samples), self.global_batch):
            indexes = samples[at : at + self.global_batch]
            yield GlobalBatch(indexes=indexes, epochs=np.full_like(indexes, epoch))

    def reader(self) -> OrderReader:
        """What goes through the samples of all epochs, one after the other."""
        return OrderReader(self)

    def reserve(self, index: int, rng: np.random.Generator) -> int:
        """A sample in place of `index`, which cannot be used: any of the dataset."""
        return int(rng.integers(self.n_samples))

    def position(self, epoch: int, batch: int) -> dict[str, Any]:
        """The state when a batch begins, without the identity; JSON-able."""
        return {"epoch": epoch, "batch": batch}

    def identity(self) -> dict[str, Any]:
        """What makes the order, and so what a saved position depends on; JSON-able."""
        return {
            "version": ORDER_VERSION,
            "seed": self.seed,
            "global_batch": self.global_batch,
            "lanes": self.lanes,
            "block": self.block,
            "shuffle": self.shuffle,
        }

    def _count_batches(self) -> int:
        if not self.shuffle:
            return -(-self.n_samples // self.global_batch)
        fewest = min(sum(self.shard_sizes[s] for s in lane) for lane in self._dealt)
        return fewest // (self.global_batch // self.lanes)

    def _lane(self, starts: Int64Array, epoch: int, lane: int) -> Int64Array:
        rng = sample_rng(self.seed, epoch, f"lane {lane}", 0, "order")
        shuffled = rng.permutation(np.asarray(self._dealt[lane], dtype=np.int64))
        step = self.block or len(shuffled)
        blocks = []
        for at in range(0, len(shuffled), step):
            samples = np.concatenate([np.arange(starts[s], starts[s + 1]) for s in shuffled[at : at + step]])
            rng.shuffle(samples)
            blocks.append(samples)
        return np.concatenate(blocks)


class OrderReader:
    """Goes through the samples of an order, epoch after epoch; it keeps the order of the last epoch that it was in."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._epoch = -1
        self._samples = np.empty(0, np.int64)

    def take(self, begin: int, end: int) -> GlobalBatch:
        """The samples of numbers `begin` to `end`, counted through all epochs."""
        per_epoch = self._order.n_batches * self._order.global_batch
        indexes, epochs = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        while begin < end:
            epoch, at = divmod(begin, per_epoch)
            if self._epoch != epoch:
                self._epoch, self._samples = epoch, self._order.epoch(epoch)
            indexes.append(self._samples[at : at + end - begin])
            epochs.append(np.full(len(indexes[-1]), epoch, np.int64))
            begin += len(indexes[-1])
        return GlobalBatch(indexes=np.concatenate(indexes), epochs=np.concatenate(epochs))


def _dealt(shard_sizes: tuple[int, ...], lanes: int) -> tuple[tuple[int, ...], ...]:
    """Shards to lanes: each shard, largest first, to the lane that has the fewest samples; independent of the epoch."""
    heap = [(0, lane) for lane in range(lanes)]
    dealt: list[list[int]] = [[] for _ in range(lanes)]
    for shard in sorted(range(len(shard_sizes)), key=lambda s: (-shard_sizes[s], s)):
        samples, lane = heapq.heappop(heap)
        dealt[lane].append(shard)
        heapq.heappush(heap, (samples + shard_sizes[shard], lane))
    return tuple(tuple(sorted(shards)) for shards in dealt)


def rank_share(batch: Int64Array, rank: int, world_size: int) -> tuple[Int64Array, npt.NDArray[np.float32]]:
    """Rank's part of a global batch, and each sample's weight.

    A batch that the ranks do not divide evenly (the last one of a validation) is padded with its own first samples,
    whose weight is 0, so that every rank has as many samples and as many steps as every other.
    """
    share = -(-len(batch) // world_size)
    padded = np.resize(batch, share * world_size)
    weight = (np.arange(share * world_size) < len(batch)).astype(np.float32)
    mine = slice(rank * share, (rank + 1) * share)
    return padded[mine], weight[mine]
