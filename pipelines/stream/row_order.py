"""Order of packed rows: each row holds the visible tokens of as many samples as fill it, planned from the manifest
alone.

The samples of an epoch, in the seed's order, are cut into blocks of equally many samples, and each block fills equally
many rows. The number of samples before a row is therefore a multiplication: any position is found without the rows
before it, and no buffer is saved. Within a block, each row takes the next samples until it reaches its part of the
block's tokens. Then the counts of its masks are scaled by a common factor within a bound, so that the row is full. The
few samples left at the end of a block are placed where there is room, and dropped from the epoch if they fit nowhere.
Blocks are sized to hold all samples of an epoch. Rows are counted through all epochs: rows that do not fill a batch at
the end of an epoch start the next one.

Rows differ in decoding cost, and ranks should not wait for each other. In a window of batches, the most expensive rows
share a batch; within a batch, rows are ordered so that each half, third or quarter costs about the same. A window stays
within an epoch, so an epoch has the same rows with and without windows. In mixtures, windows continue across epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import islice
from typing import Any, Protocol

import numpy as np

from maskstream.shards.arrays import Int64s

from .order import GlobalBatch, Order, PackedRow
from .rng import sample_rng
from .samples import SplitSamples

BLOCK_ROWS = 64
"""Maximum rows per block. More rows average out sample sizes, but a seek recomputes up to one block."""
DEAR = 1.5
"""Cost relative to the mean above which the most expensive rows of a window share a batch."""
_MEASURED = 1 << 14  # samples measured to find how many fill a row


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowSizes:
    """Row usage of N samples."""

    shape: Int64s
    """int64 (N, 3): tokens along t, h and w."""
    visible: Int64s
    """int64 (N,): tokens that the encoder sees, before scaling."""
    target: Int64s | None
    """int64 (N,): tokens to reconstruct; None if these are the hidden ones."""
    pixels: Int64s
    """int64 (N,): pixels to decode."""

    @property
    def tokens(self) -> Int64s:
        """Number of tokens of each sample, int64 (N,)."""
        tokens: Int64s = self.shape.prod(axis=1)
        return tokens


class Sizer(Protocol):
    """Finds the sizes of samples from the manifest alone. A random size is keyed by the sample's epoch and key."""

    def sizes(self, samples: GlobalBatch) -> RowSizes: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """Capacity of a row."""

    tokens: int
    """Maximum number of visible tokens."""
    targets: int | None = None
    """Maximum number of decoder targets; None for no limit."""
    scaling: float = 0.1
    """Largest relative change of a sample's visible tokens; 0 keeps the mask's counts."""


def bounds(tokens: Int64s, visible: Int64s, scaling: float) -> tuple[Int64s, Int64s]:
    """Return the minimum and maximum visible tokens of samples, int64 (N,).

    At least one token stays visible, and one hidden in samples that hide any.
    """
    share = Fraction(str(scaling))
    change = visible * share.numerator // share.denominator
    most = np.where(visible < tokens, tokens - 1, tokens)
    return np.maximum(visible - change, np.minimum(visible, 1)), np.minimum(visible + change, most)


class _Limits:
    """Running sums of samples' row usage with their limits, to find how many samples from a position
    on fit into a row.
    """

    def __init__(self, sizes: RowSizes, room: Room) -> None:
        tokens, visible = sizes.tokens, sizes.visible
        self.least, self.most = bounds(tokens, visible, room.scaling)
        taken = [(self.least, room.tokens)]
        if room.targets is not None and sizes.target is None:
            # Hidden tokens are targets, so limit both together: even with as many visible tokens as the bound allows,
            # hidden ones must not exceed the room for targets.
            taken += [(tokens, room.tokens + room.targets), (tokens - self.most, room.targets)]
        elif room.targets is not None and sizes.target is not None:
            taken.append((sizes.target, room.targets))
        self.own = np.stack([one for one, _ in taken])
        self.limits = np.array([limit for _, limit in taken])
        self.sums = np.concatenate([np.zeros((len(taken), 1), np.int64), np.cumsum(self.own, axis=1)], axis=1)
        self.visible = np.concatenate([[0], np.cumsum(visible)])

    def end(self, start: int) -> int:
        """Return the end of the longest run from `start` that fits into a row."""
        ends = (
            np.searchsorted(sums, sums[start] + limit, side="right") - 1
            for sums, limit in zip(self.sums, self.limits, strict=True)
        )
        return int(min(ends))

    def nearest(self, aim: int) -> int:
        """Return the number of samples whose total visible tokens are nearest to `aim`."""
        at = int(np.searchsorted(self.visible, aim))
        if at == len(self.visible):
            return at - 1
        return at - 1 if at and aim - self.visible[at - 1] < self.visible[at] - aim else at


def divided(sizes: RowSizes, room: Room, rows: int | None = None) -> tuple[list[Int64s], Int64s]:
    """Divide samples into rows; returns the samples of each row, int64 (S,), and those that fit nowhere, int64.

    Args:
        sizes: Row usage of the samples.
        room: Capacity of a row.
        rows: Number of rows. None uses as many as necessary, in order, and drops no sample.

    Raises:
        ValueError: A sample is larger than a row.
    """
    limits, n = _Limits(sizes, room), len(sizes.visible)
    if (wrong := np.flatnonzero((limits.own > limits.limits[:, None]).any(axis=0))).size:
        raise make_too_large_error(sizes, int(wrong[0]), room)
    found: list[Int64s] = []
    start, whole = 0, int(limits.visible[-1])
    while start < n if rows is None else len(found) < rows:
        # With a fixed number of rows, row j ends where the running sum reaches j + 1 equal parts of all tokens, so that
        # later rows compensate for deviations.
        aim = int(limits.visible[start]) + room.tokens if rows is None else (len(found) + 1) * whole // rows
        end = min(max(limits.nearest(aim), start + 1), limits.end(start), n)
        found.append(np.arange(start, end))
        start = end
    left = []
    for one in range(start, n):
        held = np.stack([limits.own[:, row].sum(axis=1) for row in found])
        fits = np.flatnonzero((held + limits.own[:, one] <= limits.limits).all(axis=1))
        if fits.size:
            row = int(fits[np.argmin(held[fits, 0])])
            found[row] = np.append(found[row], one)
        else:
            left.append(one)
    return found, np.array(left, np.int64)


def make_too_large_error(sizes: RowSizes, one: int, room: Room) -> ValueError:
    """Build the error for a sample that is larger than a row."""
    t, h, w = sizes.shape[one].tolist()
    targets = int(sizes.tokens[one] - sizes.visible[one] if sizes.target is None else sizes.target[one])
    least, _ = bounds(sizes.tokens[one : one + 1], sizes.visible[one : one + 1], room.scaling)
    if int(least[0]) > room.tokens:
        return ValueError(
            f"row_tokens={room.tokens} is less than one sample needs: of {t} x {h} x {w} tokens {sizes.visible[one]} "
            "are visible; raise row_tokens, lower `most` of Native, or hide more"
        )
    return ValueError(
        f"row_targets={room.targets} is less than one sample needs: of {t} x {h} x {w} tokens {targets} are targets; "
        "raise row_targets, or lower `most` of Native"
    )


def scaled(sizes: RowSizes, room: Room) -> Int64s:
    """Scale the visible tokens of a row's samples, int64 (S,), by one factor within the bound to fill the row.

    The sum is exact: the rounding remainder goes to the samples that lost most by rounding.
    """
    visible = sizes.visible
    least, most = bounds(sizes.tokens, visible, room.scaling)
    goal = min(room.tokens, int(most.sum()))
    whole = int(visible.sum())
    if goal == whole or not room.scaling or not whole:
        return visible
    exact = visible * goal
    counts = np.clip(exact // whole, least, most)
    while (missing := goal - int(counts.sum())) != 0:
        up = missing > 0
        order = np.argsort(counts * whole - exact if up else exact - counts * whole, kind="stable")
        free = order[(counts < most if up else counts > least)[order]][: abs(missing)]
        counts[free] += 1 if up else -1
    return counts


def rows_of(
    samples: GlobalBatch, sizes: RowSizes, room: Room, rows: int | None = None, progress: float | None = None
) -> list[PackedRow]:
    """Pack samples into rows; `rows` as in `divided`, `progress` as in `PackedRow`."""
    made = []
    for own in divided(sizes, room, rows)[0]:
        part = RowSizes(
            shape=sizes.shape[own],
            visible=sizes.visible[own],
            target=None if sizes.target is None else sizes.target[own],
            pixels=sizes.pixels[own],
        )
        row = PackedRow(
            indexes=samples.indexes[own],
            epochs=samples.epochs[own],
            shape=part.shape,
            visible=scaled(part, room),
            pixels=int(part.pixels.sum()),
            progress=progress,
        )
        made.append(row)
    return made


@dataclass(frozen=True, kw_only=True)
class RowSamples:
    """Samples of a split, packed into rows.

    Without shuffling, as in validation, rows take every sample once, in order and with unscaled counts, and samples are
    drawn as in epoch 0, so that every epoch has the same rows.
    """

    split: SplitSamples
    sizer: Sizer
    """Function that determines the row usage of samples."""
    room: Room
    """Capacity of a row."""
    balance: int = 1
    """Batches of a window in which the most expensive rows share batches; 1 for none, as in validation."""
    progress: float | None = None
    """As in `PackedRow`."""

    def __post_init__(self) -> None:
        if not self.split.shuffle:
            object.__setattr__(self, "room", replace(self.room, scaling=0.0))
            object.__setattr__(self, "balance", 1)

    @property
    def n_samples(self) -> int:
        """Number of samples of the split."""
        return self.split.n_samples

    @property
    def shuffle(self) -> bool:
        """Whether the samples are shuffled."""
        return self.split.shuffle

    @cached_property
    def blocks(self) -> tuple[Order, int]:
        """Order of blocks of samples, and the number of rows in each block.

        Raises:
            ValueError: The samples do not fill a row.
        """
        per_row, n, lanes = self._estimate_per_row(), self.n_samples, self.split.lanes
        most = min(BLOCK_ROWS, int(n / per_row))
        if most < 1:
            raise ValueError(
                f"row_tokens={self.room.tokens}: {n} samples do not fill one row, which takes {per_row:.0f}; lower "
                "row_tokens, or pass shuffle=False to see every sample once"
            )
        numbers = range(max(most // 2, 1), most + 1)
        if (fitted := self._fit_blocks(per_row, numbers)) is not None:
            return fitted
        # Try all block sizes from half the largest on, and take the one that drops the fewest samples per epoch.
        sizes = {rows: max(round(rows * per_row / lanes), 1) * lanes for rows in numbers}
        rows = max(sizes, key=lambda rows: (n // sizes[rows] * sizes[rows], rows))
        return self.split.order(sizes[rows]), rows

    def _fit_blocks(self, per_row: float, numbers: range) -> tuple[Order, int] | None:
        """Find blocks that hold all samples of an epoch, with the number of rows that changes counts least.

        Returns None if counts would change by more than a quarter of the allowed scaling.
        """
        lanes = self.split.lanes
        each = self.split.order(lanes).n_batches  # samples of a lane
        found = []
        for rows in numbers:
            exact = each * lanes / (rows * per_row)
            for blocks in {max(int(exact), 1), int(exact) + 1}:
                size = each // blocks * lanes
                found.append((abs(size / (rows * per_row) - 1), -rows, size))
        change, rows, size = min(found)
        return (self.split.order(size), -rows) if size and change <= self.room.scaling / 4 else None

    @cached_property
    def in_order(self) -> list[PackedRow]:
        """Return the rows of a validation, which has every sample once."""
        numbers = np.arange(self.n_samples)
        whole = GlobalBatch(indexes=numbers, epochs=np.zeros_like(numbers))
        return rows_of(whole, self.sizer.sizes(whole), self.room, progress=self.progress)

    @property
    def starts(self) -> Int64s:
        """First sample index of the only part, and the number of samples, int64 (2,)."""
        return np.array([0, self.n_samples])

    def order(self, global_batch: int, steps: int | None = None) -> RowOrder:
        """Return the order of batches of `global_batch` rows over all ranks."""
        return RowOrder(samples=self, global_batch=global_batch)

    def stream(self, samples: int | None = None) -> Order:
        """Rows have no stream of single samples."""
        raise ValueError(
            "packed rows are already batches, so a mixture or token_budget= needs loaders of single samples"
        )

    def reserve(self, index: int, rng: np.random.Generator) -> int:
        """Return a random sample of the split, to replace the unusable sample `index`."""
        return self._single.reserve(index, rng)

    def identity(self) -> dict[str, Any]:
        """JSON-able settings that a saved position depends on."""
        own = {name: value for name, value in self._single.identity().items() if name != "global_batch"}
        return {**own, **describe_rows_identity(self.room, self.balance)}

    @cached_property
    def _single(self) -> Order:
        return self.split.order(1)

    def _estimate_per_row(self) -> float:
        """Estimate the mean number of samples per row from samples spread evenly over the split.

        The result depends only on their sizes and the seed, so it is the same at every topology.
        """
        samples = spread(self.split, _MEASURED)
        sizes = self.sizer.sizes(samples)
        rows, _ = divided(sizes, self.room)
        if len(rows) == 1:
            return len(samples.indexes) * self.room.tokens / max(int(sizes.visible.sum()), 1)
        return sum(map(len, rows[:-1])) / (len(rows) - 1)


def spread(split: SplitSamples, most: int) -> GlobalBatch:
    """Return at most `most` samples, spread evenly over a split or over its sampling weights, in random order."""
    n, weights = split.n_samples, split.weights
    some = min(n, most)
    comb = (np.arange(some) + 0.5) / some
    if weights is None:
        indexes = (comb * n).astype(np.int64)
    else:
        sums = np.cumsum(weights.values)
        indexes = np.searchsorted(sums, comb * sums[-1], side="right").clip(0, n - 1)
    indexes = sample_rng(split.seed, 0, "rows", 0, "order").permutation(indexes)
    return GlobalBatch(indexes=indexes, epochs=np.zeros_like(indexes))


@dataclass(frozen=True, kw_only=True)
class RowOrder:
    """Order of batches of `global_batch` packed rows over all ranks.

    Raises:
        ValueError: The samples fill fewer rows than a batch has.
    """

    samples: RowSamples
    global_batch: int

    def __post_init__(self) -> None:
        if self.shuffle and not self.n_batches:
            order, rows = self.samples.blocks
            raise ValueError(
                f"{self.samples.n_samples} samples fill {order.n_batches * rows} rows of "
                f"{self.samples.room.tokens} visible tokens, but a global batch has {self.global_batch} rows "
                "(rows x ranks); lower rows or row_tokens"
            )

    @property
    def shuffle(self) -> bool:
        """Whether the samples are shuffled."""
        return self.samples.shuffle

    @property
    def n_batches(self) -> int:
        """Batches per epoch: only full ones when shuffled (the dropped rows differ between epochs), else enough to
        cover every sample.
        """
        if not self.shuffle:
            return -(-len(self.samples.in_order) // self.global_batch)
        order, rows = self.samples.blocks
        return order.n_batches * rows // self.global_batch

    def rows(self, first: int) -> Iterator[PackedRow]:
        """Yield the rows from number `first` on, counted through all epochs, for batches without windows.

        They are endless when shuffled; in a validation every epoch has the same.
        """
        if not self.shuffle:
            yield from self.samples.in_order[first:]
            return
        order, rows = self.samples.blocks
        epoch, at = divmod(first, order.n_batches * rows)
        block, skipped = divmod(at, rows)
        while True:
            for samples in order.batches(epoch, block):
                yield from rows_of(samples, self.samples.sizer.sizes(samples), self.samples.room, rows)[skipped:]
                skipped = 0
            epoch, block = epoch + 1, 0

    def batches(self, epoch: int, first: int = 0) -> Iterator[GlobalBatch]:
        """Yield the global batches of an epoch, from number `first` on; the last one of a validation may be smaller."""
        n, begin = self.n_batches, epoch * self.n_batches if self.shuffle else 0
        yield from in_windows(
            self.rows,
            range(begin + first, begin + n),
            size=self.global_batch,
            window=-(-n // -(-n // self.samples.balance)) if n else 1,  # so that the last one is about as long
            begin=begin,
            end=begin + n,
            seed=self.samples.split.seed,
            epoch=epoch,
        )

    def reserve(self, index: int, rng: np.random.Generator) -> int:
        """Return the same row, since a row replaces its unusable samples itself."""
        return index

    def identity(self) -> dict[str, Any]:
        """JSON-able settings that a saved position depends on."""
        return {**self.samples.identity(), "global_batch": self.global_batch}

    def position(self, epoch: int, batch: int) -> dict[str, Any]:
        """Return the position before batch `batch`, and the number of its first row."""
        return {"epoch": epoch, "batch": batch, "row": self._first(epoch, batch)}

    def _first(self, epoch: int, batch: int) -> int:
        """Return the number of a batch's first row, as counted by `rows`."""
        return ((epoch * self.n_batches if self.shuffle else 0) + batch) * self.global_batch


def describe_rows_identity(room: Room, balance: int) -> dict[str, Any]:
    """Return the saved identity of rows and windows; windows of one batch are omitted."""
    windows = {"balance": balance} if balance > 1 else {}
    return {"row_tokens": room.tokens, "row_targets": room.targets, "scaling": room.scaling, **windows}


def in_windows(
    rows: Callable[[int], Iterator[PackedRow]],
    batches: range,
    *,
    size: int,
    window: int,
    begin: int,
    end: int | None,
    seed: int,
    epoch: int,
) -> Iterator[GlobalBatch]:
    """Yield batches of `size` rows by their numbers in the run.

    Args:
        rows: Returns the rows from a number on.
        batches: Numbers of the batches to yield.
        size: Rows per batch.
        window: Batches per window.
        begin: Batch number at which the first window starts.
        end: Batch number at which the last window, possibly shorter, ends; None for endless windows.
        seed: Random seed.
        epoch: Epoch to report in the batches.
    """
    if not batches:
        return
    first = begin + (batches.start - begin) // window * window
    left = rows(first * size)
    while first < batches.stop:
        stop = first + window if end is None else min(first + window, end)
        own = [*islice(left, (stop - first) * size)]
        shared = [np.arange(len(own))]
        if stop - first > 1:
            shared = share_by_cost(np.array([row.pixels for row in own]), size)
            # The most expensive batches are placed randomly in the window, so that costs do not fall over it.
            order = sample_rng(seed, 0, f"window {first}", 0, "order").permutation(len(shared))
            shared = [shared[one] for one in order.tolist()]
        for part in shared[max(batches.start - first, 0) : batches.stop - first]:
            chosen = part[balanced([own[row].pixels for row in part.tolist()])]
            yield GlobalBatch(
                indexes=chosen + first * size,
                epochs=np.full(len(chosen), epoch, np.int64),
                packed=tuple(own[row] for row in chosen.tolist()),
            )
        first = stop


def share_by_cost(costs: Int64s, size: int) -> list[Int64s]:
    """Assign the rows of a window to batches by cost: int64 (size,) for each batch.

    A row that costs more than a rank's part of a batch makes other ranks wait, unless they have such rows too. So the
    most expensive rows share a batch as long as there is an expensive one among the rest. The others keep their order.
    """
    left, batches = np.arange(len(costs)), []
    while len(left) > size and costs[left].max() > DEAR * costs[left].mean():
        dearest = np.sort(np.argsort(-costs[left], kind="stable")[:size])
        batches.append(left[dearest])
        left = np.delete(left, dearest)
    return [*batches, *left.reshape(-1, size)]


def balanced(costs: Sequence[int]) -> Int64s:
    """Order the rows of a batch so that equal parts of it cost about the same to decode: int64 (n,)."""
    # Pair the cheapest row with the most expensive, the second cheapest with the second most expensive, and so on, so
    # that pairs cost about the same. Then spread the pairs, so that parts of any size contain pairs of all kinds.
    n = len(costs)
    by_cost = sorted(range(n), key=lambda row: (costs[row], row))
    pairs = [by_cost[k : k + 1] + by_cost[n - 1 - k : n - k][: n - 1 - 2 * k] for k in range((n + 1) // 2)]
    return np.array([row for k in sorted(range(len(pairs)), key=_reverse_bits) for row in pairs[k]], np.int64)


def _reverse_bits(number: int) -> int:
    return int(f"{number:032b}"[::-1], 2)
