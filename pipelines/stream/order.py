"""The order of samples: a pure function of the dataset, the seed and the epoch, the same at every topology.

Shards are assigned to lanes once (balanced by samples). In each epoch the shards of a lane are shuffled and grouped
into blocks, and the samples of each block are shuffled; with weights, some come several times and others not at all.
Global batch b takes the same number of samples from each lane, lane after lane: with one lane per node, each node reads
only its own shards; with one lane and one block, the whole dataset is shuffled.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from .rng import sample_rng

Int64Array = npt.NDArray[np.int64]
MAX_REPEATS = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A weight for each sample, float64 (N,), from 0 on. An epoch has N samples in all; a sample of weight w comes
    w N / sum times in it, rounded up or down at random so that this is its mean over epochs (systematic sampling).

    Raises ValueError for other numbers.
    """

    values: npt.NDArray[np.float64]
    _sums: npt.NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        values = np.array(self.values, np.float64)  # a copy: the caller's array may change
        if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any() or not values.sum() > 0:
            raise ValueError(
                f"weights {values.shape} must be finite numbers from 0 on, one a sample, and not all 0; they are from "
                f"{values.min(initial=np.inf):g} to {values.max(initial=-np.inf):g}"
            )
        sums = np.cumsum(values)
        object.__setattr__(self, "values", values)
        scaled = np.where(sums == sums[-1], float(len(values)), sums * (len(values) / sums[-1]))
        object.__setattr__(self, "_sums", scaled)
        if self.repeats > MAX_REPEATS:
            raise ValueError(
                f"a weight of {values.max():g} among {values.sum():g} would repeat a sample {self.repeats} times"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Weights) and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash(self.checksum)

    @property
    def repeats(self) -> int:
        """At most how often a sample comes in an epoch."""
        return int(np.ceil(self.values.max() * len(self.values) / self.values.sum())) + 1

    @property
    def checksum(self) -> str:
        """The xxh3_128 of the weights in hex."""
        return xxhash.xxh3_128_hexdigest(self.values.tobytes())

    def counts(self, seed: int, epoch: int) -> Int64Array:
        """How often each sample comes in an epoch, int64 (N,), N in all."""
        # Systematic sampling: the weights lie on a line of length N, one behind the other, and a comb with a tooth at
        # each whole number is laid on it. One draw shifts the comb. A sample comes as often as teeth meet its weight.
        shift = sample_rng(seed, epoch, "weights", 0, "order").random()
        ends = np.floor(self._sums + shift).astype(np.int64)
        return np.diff(ends, prepend=0)

    def drawn(self, rng: np.random.Generator) -> int:
        """A sample by weight."""
        return int(np.searchsorted(self._sums, rng.random() * self._sums[-1], side="right"))


Ints = npt.NDArray[np.int32] | npt.NDArray[np.int64]

ORDER_VERSION = 1
"""The version of the order of samples and of their random draws (clip, crop, mask). It is raised when one of these
changes for the same seed; a position saved under another version is refused.
"""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PackedRow:
    """The S samples that share a row of tokens (see row_order.py).

    indexes, epochs: int64 (S,), as in `GlobalBatch`. shape: int64 (S, 3), the tokens of each sample along t, h and w.
    visible: int64 (S,), how many of them the encoder sees. pixels: what is decoded for the row. progress: where in the
    run they are drawn, of rows whose samples change over it; None of others.
    """

    indexes: Int64Array
    epochs: Int64Array
    shape: Int64Array
    visible: Int64Array
    pixels: int
    progress: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobalBatch:
    """The samples of a batch over all ranks: their indexes, int64 (G,), and their epochs, int64 (G,).

    packed: where G rows of several samples are packed, what each holds; `indexes` are then the numbers of the rows.
    """

    indexes: Int64Array
    epochs: Int64Array
    packed: tuple[PackedRow, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """The order of a dataset whose shard i holds `shard_sizes[i]` samples; samples are numbered shard by shard.

    global_batch: samples of a batch over all ranks. lanes: a divisor of global_batch. block: the number of shards whose
    samples are shuffled together, None for all shards of a lane. shuffle=False is the order for validation: every
    sample once, in the dataset's order; the last batch may be smaller. weights: how often samples come in an epoch. A
    sample that comes again in an epoch has another number of its epoch, so that other crops and masks are drawn for it.
    """

    shard_sizes: tuple[int, ...]
    global_batch: int
    seed: int = 0
    lanes: int = 1
    block: int | None = None
    shuffle: bool = True
    weights: Weights | None = None
    _dealt: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    _starts: Int64Array = field(init=False, repr=False, compare=False)
    _n_batches: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.global_batch < 1:
            raise ValueError(f"global_batch={self.global_batch}: it must be at least 1")
        if self.lanes < 1 or self.global_batch % self.lanes:
            raise ValueError(f"{self.lanes} lanes do not divide the global batch of {self.global_batch} samples evenly")
        if self.lanes > max(len(self.shard_sizes), 1):
            raise ValueError(f"{self.lanes} lanes for {len(self.shard_sizes)} shards; use at most one lane per shard")
        if self.block is not None and self.block < 1:
            raise ValueError(f"block of {self.block} shards; it must be at least 1, or None for all shards of a lane")
        if self.weights is not None and (not self.shuffle or self.lanes > 1):
            raise ValueError(f"weights need shuffle=True and lanes=1, got shuffle={self.shuffle}, lanes={self.lanes}")
        if self.weights is not None and len(self.weights.values) != sum(self.shard_sizes):
            raise ValueError(
                f"{len(self.weights.values)} weights for {sum(self.shard_sizes)} samples; give one for each"
            )
        object.__setattr__(self, "_dealt", dealt(self.shard_sizes, self.lanes))
        object.__setattr__(self, "_starts", np.concatenate([[0], np.cumsum(self.shard_sizes, dtype=np.int64)]))
        object.__setattr__(self, "_n_batches", self._count_batches())
        if self.shuffle and self.n_batches == 0:
            raise ValueError(
                f"{self.n_samples} samples do not fill one global batch of {self.global_batch}"
                + (f" from {self.lanes} lanes" if self.lanes > 1 else "")
                + "; lower batch_size (--batch-size), use fewer ranks, or pass shuffle=False to see every sample once"
            )

    @property
    def n_samples(self) -> int:
        return sum(self.shard_sizes)

    @property
    def n_batches(self) -> int:
        """Batches in an epoch: only full ones when shuffled, else enough to cover every sample."""
        return self._n_batches

    def epoch(self, epoch: int) -> Int64Array:
        """The sample indexes of an epoch in order, int64 (n_batches * global_batch,), or (n_samples,) unshuffled.

        A shuffled epoch drops the samples that do not fill a batch or that make lanes uneven; they differ per epoch.
        """
        return self.compose_epoch_batch(epoch).indexes

    def compose_epoch_batch(self, epoch: int) -> GlobalBatch:
        """The samples of an epoch in order, as `epoch` has them, and the epochs that are drawn for them."""
        if not self.shuffle:
            return self.coded(np.arange(self.n_samples, dtype=np.int64), epoch)
        share = self.global_batch // self.lanes
        n = self.n_batches
        indexes = np.empty((n, self.lanes, share), dtype=np.int64)
        for lane in range(self.lanes):
            indexes[:, lane] = self._lane(epoch, lane).take(n * share).reshape(n, share)
        return self.coded(indexes.reshape(-1), epoch)

    def batches(self, epoch: int, first: int = 0) -> Iterator[GlobalBatch]:
        """The global batches of an epoch, from number `first` on; the last one of a validation may be smaller."""
        size, share = self.global_batch, self.global_batch // self.lanes
        # Each batch takes the same share of every group of shards. So where a batch begins in each group follows from
        # its number, and a resume skips to there without an order in memory.
        lanes = [self._lane(epoch, lane) for lane in range(self.lanes)] if self.shuffle else []
        for lane in lanes:
            lane.skip(first * share)
        for batch in range(first, self.n_batches):
            if self.shuffle:
                codes = np.concatenate([lane.take(share) for lane in lanes])
            else:
                codes = np.arange(batch * size, min((batch + 1) * size, self.n_samples), dtype=np.int64)
            yield self.coded(codes, epoch)

    def reader(self) -> OrderReader:
        """A reader of the samples of all epochs, one epoch after the other."""
        return OrderReader(self)

    def reserve(self, index: int, rng: np.random.Generator) -> int:
        """A random sample of the dataset, to replace the unusable sample `index`."""
        return int(rng.integers(self.n_samples)) if self.weights is None else self.weights.drawn(rng)

    def position(self, epoch: int, batch: int) -> dict[str, Any]:
        """The position before batch `batch`, without the identity; JSON-able."""
        return {"epoch": epoch, "batch": batch}

    def identity(self) -> dict[str, Any]:
        """The settings that decide the order, on which a saved position depends; JSON-able."""
        weighted = {} if self.weights is None else {"weights": self.weights.checksum}
        return {
            **weighted,
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

    def coded(self, codes: Int64Array, epoch: int) -> GlobalBatch:
        """The samples of codes, which are indexes; with weights, index x repeats + the number of the repeat."""
        if self.weights is None:
            return GlobalBatch(indexes=codes, epochs=np.full_like(codes, epoch))
        repeats = self.weights.repeats
        return GlobalBatch(indexes=codes // repeats, epochs=epoch * repeats + codes % repeats)

    def order_in_one_lane(self, epoch: int) -> _Lane:
        """All samples of an epoch in order, as codes; ValueError unless shuffled in one lane."""
        if not self.shuffle or self.lanes > 1:
            raise ValueError(f"a stream needs shuffle=True and lanes=1, got shuffle={self.shuffle}, lanes={self.lanes}")
        return self._lane(epoch, 0)

    def _lane(self, epoch: int, lane: int) -> _Lane:
        return _Lane(self._blocks(epoch, lane))

    def _blocks(self, epoch: int, lane: int) -> Iterator[Ints]:
        """The samples of a lane in an epoch, block by block, as the narrowest integers of 32 or 64 bits that fit, or as
        codes (see `coded`).

        What is drawn depends neither on that nor on which blocks are kept.
        """
        dtype = np.int32 if self.n_samples <= np.iinfo(np.int32).max else np.int64
        rng = sample_rng(self.seed, epoch, f"lane {lane}", 0, "order")
        counts = np.empty(0, np.int64) if self.weights is None else self.weights.counts(self.seed, epoch)
        # Two shuffles by one generator: first the shards of the lane, then the samples of each block of shards. A block
        # is mixed whole before its first sample is given, so memory and reading are bounded by a block, not an epoch.
        shuffled = rng.permutation(np.asarray(self._dealt[lane], dtype=np.int64))
        step = self.block or len(shuffled)
        for at in range(0, len(shuffled), step):
            own = shuffled[at : at + step]
            begins = self._starts[own]
            samples = np.empty(sum(self.shard_sizes[shard] for shard in own.tolist()), dtype)
            end = 0
            for begin, shard in zip(begins.tolist(), own.tolist(), strict=True):
                n = self.shard_sizes[shard]
                samples[end : end + n] = np.arange(begin, begin + n)
                end += n
            if self.weights is not None:
                samples = _repeat_codes(samples, counts, self.weights.repeats)
            rng.shuffle(samples)
            yield samples


def _repeat_codes(samples: Ints, counts: Int64Array, repeats: int) -> Int64Array:
    """The codes of samples as often as `counts` says of each sample of the dataset, int64."""
    # The k-th copy of a sample gets the number k: its place among all copies, less that of its sample's first copy.
    own = counts[samples]
    numbers = np.arange(own.sum()) - np.repeat(np.cumsum(own) - own, own)
    codes: Int64Array = np.repeat(samples.astype(np.int64) * repeats, own) + numbers
    return codes


class _Lane:
    """The samples of a lane in order; only the block that is being read is in memory."""

    def __init__(self, blocks: Iterator[Ints]) -> None:
        self._blocks = blocks
        self._block: Ints = np.empty(0, np.int64)

    def take(self, n: int) -> Int64Array:
        """The next n samples."""
        taken = np.empty(n, np.int64)
        at = 0
        while at < n:
            some = self._next(n - at)
            taken[at : at + len(some)] = some
            at += len(some)
        return taken

    def skip(self, n: int) -> None:
        """Leave out the next n samples."""
        while n:
            n -= len(self._next(n))

    def _next(self, most: int) -> Ints:
        """At least one sample and at most `most`, from one block."""
        while not len(self._block):
            self._block = next(self._blocks)
        some, self._block = self._block[:most], self._block[most:]
        return some


class OrderReader:
    """Reads the samples of an order, epoch after epoch; it keeps the block of shards that it is in."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._epoch, self._at = -1, 0
        self._lane = _Lane(iter(()))

    def take(self, begin: int, end: int) -> GlobalBatch:
        """The samples [begin, end), counted through all epochs."""
        order = self._order
        per_epoch = order.n_batches * order.global_batch
        some = [GlobalBatch(indexes=np.empty(0, np.int64), epochs=np.empty(0, np.int64))]
        while begin < end:
            epoch, at = divmod(begin, per_epoch)
            n = min(end - begin, per_epoch - at)
            if (epoch, at) != (self._epoch, self._at):
                if epoch != self._epoch or at < self._at:
                    self._epoch, self._at, self._lane = epoch, 0, order.order_in_one_lane(epoch)
                self._lane.skip(at - self._at)
            some.append(order.coded(self._lane.take(n), epoch))
            self._at = at + n
            begin += n
        return GlobalBatch(
            indexes=np.concatenate([one.indexes for one in some]), epochs=np.concatenate([one.epochs for one in some])
        )


def dealt(shard_sizes: tuple[int, ...], lanes: int) -> tuple[tuple[int, ...], ...]:
    """The shards of each lane: each shard, largest first, goes to the lane with the fewest samples."""
    heap = [(0, lane) for lane in range(lanes)]
    dealt: list[list[int]] = [[] for _ in range(lanes)]
    for shard in sorted(range(len(shard_sizes)), key=lambda s: (-shard_sizes[s], s)):
        samples, lane = heapq.heappop(heap)
        dealt[lane].append(shard)
        heapq.heappush(heap, (samples + shard_sizes[shard], lane))
    return tuple(tuple(sorted(shards)) for shards in dealt)


def rank_share(batch: Int64Array, rank: int, world_size: int) -> tuple[Int64Array, npt.NDArray[np.float32]]:
    """One rank's part of a global batch, and the weight of each of its samples, float32.

    A batch that the ranks do not divide evenly (the last one of a validation) is padded with its own first samples at
    weight 0, so that all ranks have the same number of samples and of steps.
    """
    if world_size == 1:
        return batch, np.ones(len(batch), np.float32)
    # np.resize repeats the batch from its beginning until all ranks have as many; what it repeats weighs nothing.
    share = -(-len(batch) // world_size)
    padded = np.resize(batch, share * world_size)
    weight = (np.arange(share * world_size) < len(batch)).astype(np.float32)
    mine = slice(rank * share, (rank + 1) * share)
    return padded[mine], weight[mine]
