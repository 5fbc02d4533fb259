"""Order of samples: a pure function of the dataset, the seed and the epoch, identical at every topology.

Shards are assigned to lanes once, balanced by samples. In each epoch the shards of a lane are shuffled and grouped into
blocks, and the samples of each block are shuffled; with weights, some appear several times and others not at all.
Global batch b takes the same number of samples from each lane, lane after lane: with one lane per node, each node reads
only its own shards; with one lane and one block, the whole dataset is shuffled.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from maskstream.shards.arrays import Float32s, Float64s, Int32s, Int64s

from .rng import sample_rng

MAX_REPEATS = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Sampling weights, float64 (N,), non-negative.

    An epoch has N samples in total; a sample of weight w appears w N / sum times, rounded up or down at random so that
    this is its mean over epochs (systematic sampling).

    Raises:
        ValueError: The values are not valid weights.
    """

    values: Float64s
    _sums: Float64s = field(init=False, repr=False)

    def __post_init__(self) -> None:
        values = np.array(self.values, np.float64)  # copy, because the caller's array may change
        if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any() or not values.sum() > 0:
            raise ValueError(
                f"weights {values.shape} must be finite numbers of at least 0, one per sample, and not all 0; "
                f"they range from {values.min(initial=np.inf):g} to {values.max(initial=-np.inf):g}"
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
        """Maximum number of times a sample appears in an epoch."""
        return int(np.ceil(self.values.max() * len(self.values) / self.values.sum())) + 1

    @property
    def checksum(self) -> str:
        """xxh3_128 of the weights in hex."""
        return xxhash.xxh3_128_hexdigest(self.values.tobytes())

    def counts(self, seed: int, epoch: int) -> Int64s:
        """Return how often each sample appears in an epoch, int64 (N,), N in total."""
        # Systematic sampling: lay the weights end to end on a line of length N, with a comb of N equidistant teeth
        # shifted by one random number. A sample appears once for each tooth within its weight.
        shift = sample_rng(seed, epoch, "weights", 0, "order").random()
        ends = np.floor(self._sums + shift).astype(np.int64)
        return np.diff(ends, prepend=0)

    def drawn(self, rng: np.random.Generator) -> int:
        """Draw a sample by weight."""
        return int(np.searchsorted(self._sums, rng.random() * self._sums[-1], side="right"))


Ints = Int32s | Int64s

ORDER_VERSION = 1
"""Version of the order of samples and of their random draws (clip, crop, mask). It increases when one of them changes
for the same seed; positions saved under another version are refused.
"""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PackedRow:
    """The S samples that share a row of tokens (see row_order.py)."""

    indexes: Int64s
    """int64 (S,): samples, as in `GlobalBatch`."""
    epochs: Int64s
    """int64 (S,): their epochs, as in `GlobalBatch`."""
    shape: Int64s
    """int64 (S, 3): tokens of each sample along t, h and w."""
    visible: Int64s
    """int64 (S,): tokens of each sample that the encoder sees."""
    pixels: int
    """Number of pixels to decode for the row."""
    progress: float | None = None
    """Progress at which samples are drawn, if they change over the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobalBatch:
    """Samples of a batch over all ranks: indexes and epochs, int64 (G,) each."""

    indexes: Int64s
    """int64 (G,): samples, or row numbers if `packed` is set."""
    epochs: Int64s
    """int64 (G,): epoch of each sample."""
    packed: tuple[PackedRow, ...] | None = None
    """Contents of each packed row; None if a row is a sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Order of a dataset whose shard i contains `shard_sizes[i]` samples, numbered shard by shard."""

    shard_sizes: tuple[int, ...]
    """Number of samples of each shard."""
    global_batch: int
    """Samples per batch over all ranks."""
    seed: int = 0
    """Random seed."""
    lanes: int = 1
    """Number of groups of shards that are read in parallel; a divisor of global_batch."""
    block: int | None = None
    """Number of shards whose samples are shuffled together; None for all shards of a lane."""
    shuffle: bool = True
    """False for validation: every sample once, in order; the last batch may be smaller."""
    weights: Weights | None = None
    """How often samples appear in an epoch. Repeats within an epoch get different epoch numbers, and so different crops
    and masks.
    """
    _dealt: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    _starts: Int64s = field(init=False, repr=False, compare=False)
    _n_batches: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.global_batch < 1:
            raise ValueError(f"global_batch must be at least 1, got {self.global_batch}")
        if self.lanes < 1 or self.global_batch % self.lanes:
            raise ValueError(
                f"the global batch of {self.global_batch} samples cannot be divided evenly into {self.lanes} lanes"
            )
        if self.lanes > max(len(self.shard_sizes), 1):
            raise ValueError(
                f"got {self.lanes} lanes for {len(self.shard_sizes)} shards; use at most one lane per shard"
            )
        if self.block is not None and self.block < 1:
            raise ValueError(f"block must be at least 1, got {self.block}; use None for all shards of a lane")
        if self.weights is not None and (not self.shuffle or self.lanes > 1):
            raise ValueError(f"weights need shuffle=True and lanes=1, got shuffle={self.shuffle}, lanes={self.lanes}")
        if self.weights is not None and len(self.weights.values) != sum(self.shard_sizes):
            raise ValueError(
                f"got {len(self.weights.values)} weights for {sum(self.shard_sizes)} samples; pass one for each"
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
        """Batches per epoch: only full ones when shuffled, else enough to cover every sample."""
        return self._n_batches

    def epoch(self, epoch: int) -> Int64s:
        """Return the sample indexes of an epoch in order, int64 (n_batches * global_batch,), or (n_samples,)
        unshuffled.

        A shuffled epoch drops the samples that do not fill a batch or would make lanes uneven; they differ between
        epochs.
        """
        return self.compose_epoch_batch(epoch).indexes

    def compose_epoch_batch(self, epoch: int) -> GlobalBatch:
        """Return the samples of an epoch in order, as in `epoch`, with the epochs used for their draws."""
        if not self.shuffle:
            return self.coded(np.arange(self.n_samples, dtype=np.int64), epoch)
        share = self.global_batch // self.lanes
        n = self.n_batches
        indexes = np.empty((n, self.lanes, share), dtype=np.int64)
        for lane in range(self.lanes):
            indexes[:, lane] = self._lane(epoch, lane).take(n * share).reshape(n, share)
        return self.coded(indexes.reshape(-1), epoch)

    def batches(self, epoch: int, first: int = 0) -> Iterator[GlobalBatch]:
        """Yield the global batches of an epoch, from number `first` on; the last one of a validation may be smaller."""
        size, share = self.global_batch, self.global_batch // self.lanes
        # Each batch takes the same fraction of every lane. So the start of a batch in each lane follows from its
        # number, and a resume can skip to it without materialising the order.
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
        """Return a reader of the samples of all epochs in turn."""
        return OrderReader(self)

    def reserve(self, index: int, rng: np.random.Generator) -> int:
        """Return a random sample of the dataset, to replace the unusable sample `index`."""
        return int(rng.integers(self.n_samples)) if self.weights is None else self.weights.drawn(rng)

    def position(self, epoch: int, batch: int) -> dict[str, Any]:
        """Return the JSON-able position before batch `batch`, without the identity."""
        return {"epoch": epoch, "batch": batch}

    def identity(self) -> dict[str, Any]:
        """JSON-able settings that determine the order, and that a saved position depends on."""
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

    def coded(self, codes: Int64s, epoch: int) -> GlobalBatch:
        """Decode sample codes: plain indexes or, with weights, index x repeats + the number of the repeat."""
        if self.weights is None:
            return GlobalBatch(indexes=codes, epochs=np.full_like(codes, epoch))
        repeats = self.weights.repeats
        return GlobalBatch(indexes=codes // repeats, epochs=epoch * repeats + codes % repeats)

    def order_in_one_lane(self, epoch: int) -> _Lane:
        """Return all samples of an epoch in order, as codes.

        Raises:
            ValueError: The order is not shuffled or has several lanes.
        """
        if not self.shuffle or self.lanes > 1:
            raise ValueError(f"a stream needs shuffle=True and lanes=1, got shuffle={self.shuffle}, lanes={self.lanes}")
        return self._lane(epoch, 0)

    def _lane(self, epoch: int, lane: int) -> _Lane:
        return _Lane(self._blocks(epoch, lane))

    def _blocks(self, epoch: int, lane: int) -> Iterator[Ints]:
        """Yield the samples of a lane block by block, in the narrowest of int32 and int64 that fits, or as codes (see
        `coded`).

        The random draws depend neither on the integer type nor on which blocks are used.
        """
        dtype = np.int32 if self.n_samples <= np.iinfo(np.int32).max else np.int64
        rng = sample_rng(self.seed, epoch, f"lane {lane}", 0, "order")
        counts = np.empty(0, np.int64) if self.weights is None else self.weights.counts(self.seed, epoch)
        # One generator shuffles twice: first the lane's shards, then the samples of each block of shards. A block is
        # fully shuffled before its first sample is used, so memory and reading are bounded by a block, not by an epoch.
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


def _repeat_codes(samples: Ints, counts: Int64s, repeats: int) -> Int64s:
    """Repeat each sample's code as often as `counts`, indexed by sample, specifies: int64."""
    # The k-th copy of a sample gets number k: its position among all copies minus the position of the sample's first
    # copy.
    own = counts[samples]
    numbers = np.arange(own.sum()) - np.repeat(np.cumsum(own) - own, own)
    codes: Int64s = np.repeat(samples.astype(np.int64) * repeats, own) + numbers
    return codes


class _Lane:
    """Samples of a lane in order; only the current block is in memory."""

    def __init__(self, blocks: Iterator[Ints]) -> None:
        self._blocks = blocks
        self._block: Ints = np.empty(0, np.int64)

    def take(self, n: int) -> Int64s:
        """Return the next n samples."""
        taken = np.empty(n, np.int64)
        at = 0
        while at < n:
            some = self._next(n - at)
            taken[at : at + len(some)] = some
            at += len(some)
        return taken

    def skip(self, n: int) -> None:
        """Skip the next n samples."""
        while n:
            n -= len(self._next(n))

    def _next(self, most: int) -> Ints:
        """Return between one and `most` samples from one block."""
        while not len(self._block):
            self._block = next(self._blocks)
        some, self._block = self._block[:most], self._block[most:]
        return some


class OrderReader:
    """Reader of the samples of an order, epoch after epoch; it caches the current block of shards."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._epoch, self._at = -1, 0
        self._lane = _Lane(iter(()))

    def take(self, begin: int, end: int) -> GlobalBatch:
        """Return samples [begin, end), counted through all epochs."""
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
    """Assign shards to lanes: largest first, each to the lane with the fewest samples."""
    heap = [(0, lane) for lane in range(lanes)]
    dealt: list[list[int]] = [[] for _ in range(lanes)]
    for shard in sorted(range(len(shard_sizes)), key=lambda s: (-shard_sizes[s], s)):
        samples, lane = heapq.heappop(heap)
        dealt[lane].append(shard)
        heapq.heappush(heap, (samples + shard_sizes[shard], lane))
    return tuple(tuple(sorted(shards)) for shards in dealt)


def rank_share(batch: Int64s, rank: int, world_size: int) -> tuple[Int64s, Float32s]:
    """Return one rank's part of a global batch, and the weight of each of its samples, float32.

    A batch that the ranks do not divide evenly (the last one of a validation) is padded with its own first samples at
    weight 0, so that all ranks have the same number of samples and of steps.
    """
    if world_size == 1:
        return batch, np.ones(len(batch), np.float32)
    # np.resize repeats the batch from its start until all ranks have equally many; repeated samples have weight 0.
    share = -(-len(batch) // world_size)
    padded = np.resize(batch, share * world_size)
    weight = (np.arange(share * world_size) < len(batch)).astype(np.float32)
    mine = slice(rank * share, (rank + 1) * share)
    return padded[mine], weight[mine]
