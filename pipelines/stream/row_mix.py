"""Packed rows of several splits, and of samples whose size changes over the run.

Time goes in blocks of rows, as in row_order.py. How many samples of each split stand before a block is the integral of
its rate (shares.py): its weight, divided by the rows that the samples of all splits take. What they take is measured on
some samples of each split, at some places of the run. So rows stay full where sizes, ratios or weights change, and a
position is found without what stands before it.

All samples of a block are drawn at the progress of its middle. So what changes, changes from one block to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, get_args

import numpy as np

from .order import ORDER_VERSION, GlobalBatch, Int64Array, Order, PackedRow
from .rng import sample_rng
from .row_order import (
    BLOCK_ROWS,
    Room,
    RowSizes,
    Sizer,
    balance_identity,
    check_balance,
    in_windows,
    rows_of,
    spread,
)
from .samples import SplitSamples
from .shares import Shares
from .weights import (
    Unit,
    Weight,
    check_weights,
    find_part,
    most_samples,
    part_identity,
    points_of_change,
    weight_at,
)

_MEASURED = 1 << 13  # samples of a split whose sizes are looked at, where they never change
_MEASURED_EACH = 1 << 9  # and where they change, at each place of the run
_PLACES = 16  # of the run, at which they are measured, beside those where they turn or jump


class ChangingSizer(Protocol):
    """Finds the sizes of samples at a progress of the run. points_of_change: where they turn or jump, None where they
    never change.
    """

    @property
    def points_of_change(self) -> tuple[float, ...] | None: ...

    def at(self, progress: float) -> Sizer: ...


@dataclass(frozen=True, kw_only=True)
class RowPart:
    """One split of a mixture in rows. epochs: the most epochs that it gives, None for any number."""

    split: SplitSamples
    sizer: ChangingSizer
    weight: Weight = 1
    epochs: float | None = None

    @cached_property
    def measured(self) -> GlobalBatch:
        """The samples whose sizes stand for those of all."""
        return spread(self.split, _MEASURED if self.sizer.points_of_change is None else _MEASURED_EACH)

    def rows_each(self, room: Room, progress: float) -> float:
        """The rows that one sample takes at a progress of the run, in the mean."""
        sizes = self.sizer.at(progress).sizes(self.measured)
        shares = [float(sizes.visible.mean()) / room.tokens]
        if room.targets is not None:
            hidden = sizes.tokens - sizes.visible if sizes.target is None else sizes.target
            shares.append(float(hidden.mean()) / room.targets)
        # Without scaling, a row ends where the next sample does not fit: half a sample of room is left, in the mean.
        return max(shares) * (1 if room.scaling else 1 + max(shares) / 2)


@dataclass(frozen=True, kw_only=True)
class RowMix:
    """The samples of several splits, which share packed rows. The sample indexes of part k begin at `starts[k]`.

    unit: whether weights are shares of samples or of visible tokens. balance: as of `RowSamples`. length: the batches
    of an epoch; None for as many as all samples of all parts fill at the start of the run. ValueError for weights and
    epochs that are not legal, and for parts that are not shuffled in one lane.
    """

    parts: tuple[RowPart, ...]
    room: Room
    unit: Unit = "samples"
    balance: int = 1
    seed: int = 0
    length: int | None = None

    def __post_init__(self) -> None:
        check_balance(self.balance)
        if self.length is not None and self.length < 1:
            raise ValueError(f"batches={self.length}: an epoch needs at least one batch")
        if self.unit not in get_args(Unit):
            raise ValueError(f"unit={self.unit!r}: weights are shares of {' or of '.join(get_args(Unit))}")
        epochs = [part.epochs for part in self.parts]
        check_weights(self.weights, epochs if any(most is not None for most in epochs) else None, self._sizes)
        for part in self.parts:
            part.split.stream()

    @property
    def weights(self) -> tuple[Weight, ...]:
        """The weight of each part."""
        return tuple(part.weight for part in self.parts)

    @property
    def points_of_change(self) -> tuple[float, ...] | None:
        """Where weights or sizes turn or jump, None where none changes."""
        found = [points_of_change(self.weights), *(part.sizer.points_of_change for part in self.parts)]
        changing = [points for points in found if points is not None]
        return tuple(p for points in changing for p in points) if changing else None

    @property
    def split(self) -> SplitSamples:
        """The split of the only part; ValueError where there are several."""
        if len(self.parts) > 1:
            raise ValueError("rows of several splits share no split")
        return self.parts[0].split

    @property
    def n_samples(self) -> int:
        """The number of samples of all parts."""
        return sum(self._sizes)

    @property
    def shuffle(self) -> bool:
        """A mixture is always shuffled."""
        return True

    @cached_property
    def starts(self) -> Int64Array:
        """The first sample index of each part, int64 (parts + 1,); the last entry is n_samples."""
        return np.cumsum([0, *self._sizes], dtype=np.int64)

    def order(self, global_batch: int, steps: int | None = None) -> RowMixOrder:
        """The order of batches of `global_batch` rows over all ranks, in a run of `steps` batches."""
        return RowMixOrder(samples=self, global_batch=global_batch, steps=steps)

    def stream(self, samples: int | None = None) -> Order:
        """Rows have no stream of single samples."""
        raise ValueError("packed rows are batches already: a mixture or token_budget= takes loaders of single samples")

    def reserve(self, index: int, rng: np.random.Generator) -> int:
        """A random sample of the same part, to replace the unusable sample `index`."""
        part, own = find_part(self.starts, index)
        return int(self.starts[part]) + self.parts[part].split.stream().reserve(own, rng)

    def identity(self) -> dict[str, Any]:
        """The settings that a saved position depends on, JSON-able."""
        room = {"row_tokens": self.room.tokens, "row_targets": self.room.targets, "scaling": self.room.scaling}
        parts = [part_identity(part.weight, part.epochs, part.split.stream()) for part in self.parts]
        unit = {"unit": self.unit, **balance_identity(self.balance)}
        return {"version": ORDER_VERSION, "seed": self.seed, **room, **unit, "parts": parts}

    @property
    def _sizes(self) -> list[int]:
        return [part.split.n_samples for part in self.parts]


@dataclass(frozen=True, kw_only=True)
class RowRates:
    """The samples that each part of a mixture gives in a row."""

    samples: RowMix
    _known: dict[float, list[float]] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, progress: float, alive: Sequence[bool]) -> list[float]:
        """The rate of each part at a progress; 0 for those that are not alive."""
        mixed = self.samples
        weights = [
            weight_at(part.weight, part.split.n_samples, progress) if lives else 0.0
            for part, lives in zip(mixed.parts, alive, strict=True)
        ]
        rows = self.rows_each(progress)
        if mixed.unit == "tokens":
            weights = [weight / each for weight, each in zip(weights, rows, strict=True)]
        whole = sum(weight * each for weight, each in zip(weights, rows, strict=True))
        return [weight / whole for weight in weights] if whole > 0 else weights

    def rows_each(self, progress: float) -> list[float]:
        """The rows that one sample of each part takes."""
        if progress not in self._known:
            self._known[progress] = [part.rows_each(self.samples.room, progress) for part in self.samples.parts]
        return self._known[progress]


@dataclass(frozen=True, kw_only=True)
class RowMixOrder:
    """The order of batches of `global_batch` packed rows over all ranks; blocks go on over the ends of epochs.

    steps: the batches of the run, which all that changes over it needs. An epoch has one batch at least, so the samples
    of small splits may come several times in a batch, each time drawn anew.
    """

    samples: RowMix
    global_batch: int
    steps: int | None = None

    @property
    def shuffle(self) -> bool:
        """Rows of a mixture are always shuffled."""
        return True

    @cached_property
    def n_batches(self) -> int:
        """The batches of an epoch."""
        if self.samples.length is not None:
            return self.samples.length
        # The rows that all samples of all parts fill at the start of the run.
        sizes = [part.split.n_samples for part in self.samples.parts]
        rows = sum(n * each for n, each in zip(sizes, self._rates.rows_each(0.0), strict=True))
        return max(int(rows / self.global_batch), 1)

    @cached_property
    def shares(self) -> Shares:
        """How many samples of each part stand before a row, by blocks."""
        mixed = self.samples
        if mixed.points_of_change is not None and self.steps is None:
            raise ValueError(
                "weights, sizes or ratios change over the run, so the loader must know the run's length: pass steps=, "
                "its number of batches"
            )
        epochs = [part.epochs for part in mixed.parts]
        return Shares(
            rates=self._rates,
            points=mixed.points_of_change,
            length=None if self._blocks is None else self._blocks * BLOCK_ROWS,
            limits=most_samples(epochs, [part.split.n_samples for part in mixed.parts]),
            whole=False,
            n_points=_PLACES,
            grain=BLOCK_ROWS,
        )

    def rows(self, first: int = 0) -> Iterator[PackedRow]:
        """The rows of the run from number `first` on, without end, of batches without windows."""
        mixed = self.samples
        readers = [part.split.stream().reader() for part in mixed.parts]
        block, skipped = divmod(first, BLOCK_ROWS)
        bounds = self.shares.given(block * BLOCK_ROWS)
        while True:
            begins, bounds = bounds, self.shares.given((block + 1) * BLOCK_ROWS)
            progress = None if mixed.points_of_change is None else self._progress(block)
            batches, sizes = [], []
            for k, (begin, end) in enumerate(zip(begins, bounds, strict=True)):
                if begin < end:
                    drawn = readers[k].take(begin, end)
                    sizes.append(mixed.parts[k].sizer.at(progress or 0.0).sizes(drawn))
                    batches.append(replace(drawn, indexes=drawn.indexes + mixed.starts[k]))
            samples, sizes_of_all = _shuffled(batches, sizes, sample_rng(mixed.seed, 0, f"block {block}", 0, "mix"))
            yield from rows_of(samples, sizes_of_all, mixed.room, BLOCK_ROWS, progress)[skipped:]
            block, skipped = block + 1, 0

    def batches(self, epoch: int, first: int = 0) -> Iterator[GlobalBatch]:
        """The global batches of an epoch, from number `first` on."""
        begin = epoch * self.n_batches
        yield from in_windows(
            self.rows,
            range(begin + first, begin + self.n_batches),
            size=self.global_batch,
            window=self.samples.balance,
            begin=0,
            end=None,
            seed=self.samples.seed,
            epoch=epoch,
        )

    def reserve(self, index: int, rng: np.random.Generator) -> int:
        """The same row again, since a row replaces its unusable samples itself."""
        return index

    def identity(self) -> dict[str, Any]:
        """The settings that a saved position depends on, JSON-able."""
        return {**self.samples.identity(), "global_batch": self.global_batch, "batches": self.n_batches}

    def position(self, epoch: int, batch: int) -> dict[str, Any]:
        """The position before batch `batch`, the number of its first row in the run, and the place of each part: its
        epoch, and the samples of that epoch in the blocks before the row's.
        """
        row = (epoch * self.n_batches + batch) * self.global_batch
        given = self.shares.given(row // BLOCK_ROWS * BLOCK_ROWS)
        each = [divmod(n, part.split.n_samples) for n, part in zip(given, self.samples.parts, strict=True)]
        positions = [{"epoch": own, "sample": sample} for own, sample in each]
        return {"epoch": epoch, "batch": batch, "row": row, "positions": positions}

    @cached_property
    def _rates(self) -> RowRates:
        return RowRates(samples=self.samples)

    @property
    def _blocks(self) -> int | None:
        """The blocks of the run."""
        return None if self.steps is None else -(-self.steps * self.global_batch // BLOCK_ROWS)

    def _progress(self, block: int) -> float:
        """The progress at the middle of a block; 1 in a run of one batch, as elsewhere."""
        return 1.0 if self.steps == 1 else min((block + 0.5) / (self._blocks or 1), 1.0)


def _shuffled(
    batches: Sequence[GlobalBatch], sizes: Sequence[RowSizes], rng: np.random.Generator
) -> tuple[GlobalBatch, RowSizes]:
    """The samples of all parts in a random order, and their sizes."""
    order = rng.permutation(sum(len(batch.indexes) for batch in batches))
    targets = [one.target for one in sizes]
    given = [one.tokens - one.visible if target is None else target for one, target in zip(sizes, targets, strict=True)]
    return (
        GlobalBatch(
            indexes=np.concatenate([batch.indexes for batch in batches])[order],
            epochs=np.concatenate([batch.epochs for batch in batches])[order],
        ),
        RowSizes(
            shape=np.concatenate([one.shape for one in sizes])[order],
            visible=np.concatenate([one.visible for one in sizes])[order],
            target=None if all(target is None for target in targets) else np.concatenate(given)[order],
            pixels=np.concatenate([one.pixels for one in sizes])[order],
        ),
    )
