"""Packed rows of several splits, or of samples whose size changes over the run.

Time is divided into blocks of rows, as in row_order.py. The number of samples of each split before a block is the
integral of its rate (shares.py): its weight, divided by the rows that the samples of all splits take. Row usage is
measured on some samples of each split at several points of the run. Rows therefore stay full when sizes, ratios or
weights change, and any position is computed without the rows before it.

All samples of a block are drawn at the progress of its middle, so changes take effect between blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, get_args

import numpy as np

from maskstream.shards.arrays import Int64s

from .mix_order import MixOrder, MixReader, MixSamples, shuffled
from .order import GlobalBatch, Order, PackedRow
from .rng import sample_rng
from .row_order import (
    BLOCK_ROWS,
    Room,
    RowSizes,
    Sizer,
    describe_rows_identity,
    in_windows,
    rows_of,
    spread,
)
from .samples import SplitSamples
from .shares import Shares
from .weights import Unit

_MEASURED = 1 << 13  # samples measured per split if sizes are constant
_MEASURED_EACH = 1 << 9  # and if they change, per point of the run
_PLACES = 16  # points of the run at which they are measured, in addition to schedule points


class ChangingSizer(Protocol):
    """Finds the sizes of samples at a given progress. `points_of_change` are the progress values where sizes bend or
    jump; None if they are constant.
    """

    @property
    def points_of_change(self) -> tuple[float, ...] | None: ...

    def at(self, progress: float) -> Sizer: ...


@dataclass(frozen=True, kw_only=True)
class RowMix(MixSamples):
    """Samples of several splits that share packed rows.

    Without `length`, an epoch has the rows that all samples fill at the start of the run.

    Raises:
        ValueError: As in `MixSamples`, or a part is not shuffled in one lane.
    """

    parts: tuple[SplitSamples, ...]
    sizers: tuple[ChangingSizer, ...]
    """Functions that determine the row usage of each part's samples."""
    room: Room
    """Capacity of a row."""
    balance: int = 1
    """Window of batches, as in `RowSamples`."""
    _known: dict[float, list[float]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise ValueError(f"unit={self.unit!r}: weights must be shares of {' or of '.join(get_args(Unit))}")
        super().__post_init__()

    @property
    def points_of_change(self) -> tuple[float, ...] | None:
        """Progress values at which weights or sizes bend or jump; None if all are constant."""
        found = [super().points_of_change, *(sizer.points_of_change for sizer in self.sizers)]
        changing = [points for points in found if points is not None]
        return tuple(p for points in changing for p in points) if changing else None

    @property
    def split(self) -> SplitSamples:
        """Split of the first part; the only one where this is a part of a mixture."""
        return self.parts[0]

    @cached_property
    def measured(self) -> list[GlobalBatch]:
        """Samples of each part whose sizes are measured as representatives."""
        most = [_MEASURED if sizer.points_of_change is None else _MEASURED_EACH for sizer in self.sizers]
        return [spread(part, n) for part, n in zip(self.parts, most, strict=True)]

    def costs(self, progress: float) -> list[float]:
        """Return the mean number of rows that one sample of each part takes at a progress of the run."""
        if progress not in self._known:
            pairs = zip(self.sizers, self.measured, strict=True)
            self._known[progress] = [self._measure_cost(sizer.at(progress).sizes(samples)) for sizer, samples in pairs]
        return self._known[progress]

    def order(self, global_batch: int, steps: int | None = None) -> RowMixOrder:
        """Return the order of batches of `global_batch` rows over all ranks, in a run of `steps` batches."""
        return RowMixOrder(samples=self, global_batch=global_batch, steps=steps)

    def stream(self, samples: int | None = None) -> Order:
        """Rows have no stream of single samples."""
        raise ValueError(
            "packed rows are already batches, so a mixture or token_budget= needs loaders of single samples"
        )

    def identity(self) -> dict[str, Any]:
        """JSON-able settings that a saved position depends on."""
        return {**super().identity(), "unit": self.unit, **describe_rows_identity(self.room, self.balance)}

    def _measure_cost(self, sizes: RowSizes) -> float:
        shares = [float(sizes.visible.mean()) / self.room.tokens]
        if self.room.targets is not None:
            shares.append(float(count_targets(sizes).mean()) / self.room.targets)
        # Without scaling, a row ends where the next sample does not fit, which leaves half a sample of room on average.
        return max(shares) * (1 if self.room.scaling else 1 + max(shares) / 2)


@dataclass(frozen=True, kw_only=True)
class RowMixOrder(MixOrder):
    """Order of batches of `global_batch` packed rows over all ranks; blocks continue across epochs.

    An epoch has at least one batch, so samples of small splits may appear several times in a batch, with separate
    draws.
    """

    samples: RowMix

    @cached_property
    def n_batches(self) -> int:
        """Batches per epoch."""
        mixed = self.samples
        if mixed.length is not None:
            return mixed.length
        # Rows that all samples of all parts fill at the start of the run.
        rows = sum(n * each for n, each in zip(mixed.sizes, mixed.costs(0.0), strict=True))
        return max(int(rows / self.global_batch), 1)

    @cached_property
    def shares(self) -> Shares:
        """Number of samples of each part before a row, by blocks."""
        self.check_steps()
        return Shares(
            rates=self.samples.rates,
            points=self.samples.points_of_change,
            length=None if self._blocks is None else self._blocks * BLOCK_ROWS,
            limits=self.samples.limits,
            whole=False,
            n_points=_PLACES,
            grain=BLOCK_ROWS,
        )

    def rows(self, first: int = 0) -> Iterator[PackedRow]:
        """Yield the rows of the run from number `first` on, without end, for batches without windows."""
        mixed, reader = self.samples, MixReader(self)
        block, skipped = divmod(first, BLOCK_ROWS)
        bounds = self.shares.given(block * BLOCK_ROWS)
        while True:
            begins, bounds = bounds, self.shares.given((block + 1) * BLOCK_ROWS)
            progress = None if mixed.points_of_change is None else self._progress(block)
            drawn = reader.between(begins, bounds)
            sizes = [
                sizer.at(progress or 0.0).sizes(replace(part, indexes=part.indexes - start))
                for sizer, part, start in zip(mixed.sizers, drawn, mixed.starts.tolist(), strict=False)
                if len(part.indexes)
            ]
            samples, order = shuffled(drawn, sample_rng(mixed.seed, 0, f"block {block}", 0, "mix"))
            yield from rows_of(samples, _join_sizes(sizes, order), mixed.room, BLOCK_ROWS, progress)[skipped:]
            block, skipped = block + 1, 0

    def batches(self, epoch: int, first: int = 0) -> Iterator[GlobalBatch]:
        """Yield the global batches of an epoch, from number `first` on."""
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
        """Return the same row, since a row replaces its unusable samples itself."""
        return index

    def position(self, epoch: int, batch: int) -> dict[str, Any]:
        """Return the position before batch `batch`: the number of its first row in the run, and each part's epoch and
        samples of that epoch before the row's block.
        """
        row = (epoch * self.n_batches + batch) * self.global_batch
        given = self.shares.given(row // BLOCK_ROWS * BLOCK_ROWS)
        return {"epoch": epoch, "batch": batch, "row": row, "positions": self.samples.positions(given)}

    @property
    def _blocks(self) -> int | None:
        """Number of blocks in the run."""
        return None if self.steps is None else -(-self.steps * self.global_batch // BLOCK_ROWS)

    def _progress(self, block: int) -> float:
        """Return the progress at the middle of a block; 1 in a run of one batch, as elsewhere."""
        return 1.0 if self.steps == 1 else min((block + 0.5) / (self._blocks or 1), 1.0)


def count_targets(sizes: RowSizes) -> Int64s:
    """Count the targets of samples: the mask's targets, or all hidden tokens."""
    return sizes.tokens - sizes.visible if sizes.target is None else sizes.target


def _join_sizes(sizes: Sequence[RowSizes], order: Int64s) -> RowSizes:
    """Concatenate the sizes of all parts in the given order."""
    shape, visible, pixels = (
        np.concatenate([getattr(one, name) for one in sizes])[order] for name in ("shape", "visible", "pixels")
    )
    target = None
    if any(one.target is not None for one in sizes):
        target = np.concatenate([count_targets(one) for one in sizes])[order]
    return RowSizes(shape=shape, visible=visible, target=target, pixels=pixels)
