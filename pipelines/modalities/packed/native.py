"""What samples of one kind say of themselves, so that they stand in a row with others: the seam of packed rows.

    draw(samples)           their shapes and crops, by the manifest alone; so rows are planned
    plan(item, shape, ...)  what else is drawn of one, and the bytes to read
    plan.fill(...)          reads and decodes it, writes its tokens, and returns the cues of its mask

A new kind is a subclass of `NativeSamples`, a plan, and its name in `KINDS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.augment.native import Native
from maskstream.pipelines.masks import ByEnergy, Cues, Draw, Maps, Mask, TokenGrid
from maskstream.pipelines.masks.patterns.random import adjust_map
from maskstream.pipelines.modalities.fields import FieldReader
from maskstream.pipelines.modalities.rows import Item
from maskstream.pipelines.stream.order import GlobalBatch, Int64Array
from maskstream.pipelines.stream.rng import Place, sample_numbers
from maskstream.pipelines.stream.row_order import Room, RowSizes, divided
from maskstream.pipelines.stream.shares import Schedule, find_schedules, list_points
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.base import Range

Shape = tuple[int, int, int]
"""The tokens of a sample along t, h and w."""
Counts = tuple[int, int | None]
"""Visible tokens, and targets; None where these are the hidden tokens."""


class NativeDraws(NamedTuple):
    """What is drawn of N samples before a row is planned.

    shape: int64 (N, 3), their tokens along t, h and w. crop: int64 (N, 2), the width and height of their crops in
    source pixels, 0 of sounds. pixels: int64 (N,), what they cost to decode, in pixels of an image.
    """

    shape: Int64Array
    crop: Int64Array
    pixels: Int64Array


class NativePlan(Protocol):
    """One sample as it is drawn. ranges: all that its `fill` may read of the split. held: how many of its tokens show
    anything; those behind them are padding, and count nothing in the loss.
    """

    @property
    def ranges(self) -> tuple[Range, ...]: ...

    @property
    def held(self) -> int: ...

    def fill(self, item: Item, out: npt.NDArray[Any], stats: Stats) -> Cues:
        """Writes the tokens, (t * h * w, token_size) of the kind's dtype, and returns what its mask follows;
        SampleError if the sample is unusable.
        """


@dataclass(frozen=True, kw_only=True)
class NativeSamples(ABC):
    """The samples of a split that are of one kind.

    components: the members that hold them. over_run, native: the sizes, resolved, and what they are at `progress` of
    the run. seconds: the longest clips and sounds over the run; None for those of the clip. kept: int64 (n,), the
    samples that are numbered here, None for all. counts: the visible tokens and the targets of each shape, which are
    counted once; None where the mask draws how many.
    """

    kind: ClassVar[str]
    dtype: ClassVar[type[np.uint8] | type[np.float32]] = np.uint8

    manifest: Manifest
    components: tuple[str, ...]
    over_run: Native
    native: Native
    mask: Mask | None
    fields: FieldReader
    seed: int
    kept: Int64Array | None = None
    seconds: Schedule | None = None
    progress: float = 0.0
    counts: dict[Shape, Counts | None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def identity(self) -> dict[str, Any]:
        """What a resume compares besides the data config and the split; by default nothing."""
        return {}

    @property
    @abstractmethod
    def token_size(self) -> int:
        """The values of a token."""

    @property
    @abstractmethod
    def extremes(self) -> tuple[Shape, ...]:
        """The shapes of the samples that have the fewest and the most tokens; ValueError where no shape is legal."""

    @abstractmethod
    def draw(self, samples: GlobalBatch) -> NativeDraws:
        """The draws of some samples. One that is unusable has those of a small one, for what replaces it."""

    @abstractmethod
    def grid(self, shape: Shape) -> TokenGrid:
        """The grid that the mask of a sample is drawn on."""

    @abstractmethod
    def plan(self, item: Item, shape: Shape, crop: tuple[int, int] | None) -> NativePlan:
        """The plan of a sample that has a shape in its row; crop: what was drawn for it, None for one that replaces
        another, and takes its shape. SampleError if the sample lacks what is read.
        """

    def index(self, number: int) -> int:
        """The sample of the manifest that has a number here."""
        return number if self.kept is None else int(self.kept[number])

    def indexes(self, numbers: Int64Array) -> Int64Array:
        """The samples of the manifest that have some numbers here, int64 (N,)."""
        return numbers if self.kept is None else self.kept[numbers]

    def uniform(self, samples: GlobalBatch, purpose: str) -> npt.NDArray[np.float64]:
        """Two numbers in [0, 1) for each sample and one decision on it: float64 (N, 2)."""
        keys = self.manifest.keys(self.indexes(samples.indexes))
        return sample_numbers(self.seed, zip(samples.epochs.tolist(), keys, strict=True), 0, purpose)

    @property
    def points_of_change(self) -> tuple[float, ...] | None:
        """The progress at which sizes or ratios turn or jump, None where none changes over the run."""
        found = find_schedules(self.over_run) + ([] if self.seconds is None else [self.seconds])
        mask = self.mask
        if mask is None or not mask.needs_progress:
            return list_points(found)
        return list_points(found + find_schedules(mask)) or ()

    def at(self, progress: float) -> Self:
        """The samples as they are drawn at a progress of the run; called on those of the whole run."""
        if self.points_of_change is None:
            return self
        counts = {} if self.mask is not None and self.mask.needs_progress else self.counts
        return replace(self, native=self.over_run.at(progress), progress=progress, counts=counts)

    def sizes(self, samples: GlobalBatch) -> RowSizes:
        """What each sample takes of a row; ValueError for a mask that hides all, or that needs its batch."""
        draws = self.draw(samples)
        different, of = np.unique(draws.shape, axis=0, return_inverse=True)
        each = [self._counts(tuple(one)) for one in different.tolist()]
        own = of.reshape(-1).tolist()
        if None not in each:
            return _sizes(draws, [count for at in own if (count := each[at]) is not None])
        keys = self.manifest.keys(self.indexes(samples.indexes))
        named = zip(draws.shape.tolist(), samples.epochs.tolist(), keys, own, strict=True)
        return _sizes(draws, [each[at] or self._drawn(tuple(one), epoch, key) for one, epoch, key, at in named])

    def check(self, room: Room) -> None:
        """ValueError where a row has no room for the smallest sample, or for one of the largest, at any progress."""
        points = self.points_of_change
        for progress in (0.0,) if points is None else sorted({*points, *(k / 8 for k in range(9))}):
            self.at(progress).check_now(room)

    def check_now(self, room: Room) -> None:
        """The same at the progress that the samples are drawn at."""
        shapes = np.array(self.extremes, np.int64)
        # A mask that draws how many may show all tokens but one.
        counts = [self._counts(tuple(one)) or (max(int(np.prod(one)) - 1, 1), 0) for one in shapes.tolist()]
        nothing = np.zeros(len(shapes), np.int64)
        draws = NativeDraws(shape=shapes, crop=np.zeros((len(shapes), 2), np.int64), pixels=nothing)
        divided(_sizes(draws, counts), room)

    def _counts(self, shape: Shape) -> Counts | None:
        """The visible tokens of a shape, and the targets; None where the mask draws how many."""
        if shape not in self.counts:
            self.counts[shape] = self._count_tokens(shape)
        return self.counts[shape]

    @cached_property
    def _draws_counts(self) -> bool:
        """Whether the mask draws how many tokens are visible; ValueError for one that packed rows cannot have."""
        draws = False
        for grid in map(self.grid, self.extremes):
            # Draws that share no number, of another seed, epoch and sample each; then the same one in other batches.
            different = {_count(self._maps(grid, k, k, f"{k}")) for k in range(8)}
            places = [Place(step=k, row=k, rows=8, progress=self.progress) for k in range(8)]
            same = [self._maps(grid, 0, 0, "0", place) for place in places]
            if len(set(map(_count, same))) > 1:
                raise ValueError(
                    f"packed rows are planned before batches are, and {self.mask} draws how many tokens are visible "
                    "for a whole batch: give a ratio that is a number, or one that is drawn for each sample"
                )
            if same[0].mask_token is not None:
                raise ValueError(f"{self.mask} has mask tokens in the encoder, which packed rows do not have")
            draws |= len(different) > 1
        return draws

    def _count_tokens(self, shape: Shape) -> Counts | None:
        grid = self.grid(shape)
        if self.mask is None:
            return grid.size, 0
        if self._draws_counts:
            return None
        visible, targets = _count(self._maps(grid, 0, 0, "0"))
        if not visible:
            tokens = " x ".join(map(str, grid.shape))
            raise ValueError(
                f"{self.mask} hides all tokens of {'an' if self.kind == 'image' else 'a'} {self.kind} of {tokens}; "
                "raise `least` of Native, or hide fewer"
            )
        return visible, targets

    def _drawn(self, shape: Shape, epoch: int, key: str) -> Counts:
        """The counts of one sample, of which one token is visible at least."""
        visible, targets = _count(self._maps(self.grid(shape), self.seed, epoch, key))
        return max(visible, 1), targets

    def _maps(self, grid: TokenGrid, seed: int, epoch: int, key: str, place: Place | None = None) -> Maps:
        """Maps that have the counts of a sample's."""
        assert self.mask is not None
        place, mask, cues = Place(progress=self.progress) if place is None else place, self.mask, Cues()
        if isinstance(mask, ByEnergy):  # as if nothing moved: energy decides which tokens are hidden, not how many
            (t, *places), (tubelet, *_) = grid.shape, grid.patch
            mask = replace(mask, energy="stored", motion=0.0)
            cues = Cues(energy=np.zeros((t * tubelet, *places), np.int64))
        return mask.maps(grid, Draw.of(seed, epoch, key, 0, place, cues))

    def maps(self, item: Item, shape: Shape, visible: int, cues: Cues) -> Maps:
        """The mask of a sample of so many visible tokens."""
        assert self.mask is not None
        mask, grid = self.mask, self.grid(shape)
        if isinstance(mask, ByEnergy) and mask.per == "clip" and mask.first is None:
            mask = mask.hiding(grid.size - visible)
        maps = mask.maps(grid, item.draw(0, cues))
        return Maps(hidden=adjust_map(maps.hidden, visible, item.rng("row mask")), target=maps.target)


def _count(maps: Maps) -> Counts:
    targets = None if maps.target is None else int(np.count_nonzero(maps.target))
    return int(np.count_nonzero(~maps.hidden)), targets


def _sizes(draws: NativeDraws, counts: Sequence[Counts]) -> RowSizes:
    """What samples of some counts take of a row."""
    visible, targets = zip(*counts, strict=True)
    counted = [target for target in targets if target is not None]
    return RowSizes(
        shape=draws.shape,
        visible=np.array(visible, np.int64),
        target=np.array(counted, np.int64) if len(counted) == len(targets) else None,
        pixels=draws.pixels,
    )
