"""Interface between packed rows and the kinds of samples that can share a row.

    draw(samples)           draws their shapes and crops from the manifest alone, to plan rows
    plan(item, shape, ...)  draws the rest for a sample and finds the bytes to read
    plan.fill(...)          reads and decodes it, writes its tokens, and returns the inputs of its mask

To add a kind, subclass `NativeSamples`, write a plan, and add its name to `KINDS`.
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
from maskstream.pipelines.stream.order import GlobalBatch
from maskstream.pipelines.stream.rng import Place, sample_numbers
from maskstream.pipelines.stream.row_order import Room, RowSizes, divided
from maskstream.pipelines.stream.shares import Schedule, find_schedules, list_points
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Float64s, Int64s
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.base import Range

Shape = tuple[int, int, int]
"""Tokens of a sample along t, h and w."""
Counts = tuple[int, int | None]
"""Visible tokens and targets; None if the targets are the hidden tokens."""


class NativeDraws(NamedTuple):
    """Draws of N samples before rows are planned."""

    shape: Int64s
    """int64 (N, 3): tokens along t, h and w."""
    crop: Int64s
    """int64 (N, 2): width and height of the crops in source pixels; 0 for audio."""
    pixels: Int64s
    """int64 (N,): decoding cost, in pixels of an image."""


class NativePlan(Protocol):
    """Plan of one sample.

    `ranges` cover everything that `fill` may read from the split. `held` is the number of tokens with content; later
    ones are padding and have no weight in the loss.
    """

    @property
    def ranges(self) -> tuple[Range, ...]: ...

    @property
    def held(self) -> int: ...

    def fill(self, item: Item, out: npt.NDArray[Any], stats: Stats) -> Cues:
        """Write the tokens, (t * h * w, token_size) in the kind's dtype, and return the mask inputs.

        Raises:
            SampleError: The sample is unusable.
        """


@dataclass(frozen=True, kw_only=True)
class NativeSamples(ABC):
    """Samples of a split, all of one kind."""

    kind: ClassVar[str]
    dtype: ClassVar[type[np.uint8] | type[np.float32]] = np.uint8

    manifest: Manifest
    components: tuple[str, ...]
    """Members that contain the samples."""
    over_run: Native
    """Sizes over the run, with defaults filled in."""
    native: Native
    """Sizes at `progress` of the run."""
    mask: Mask | None
    fields: FieldReader
    seed: int
    kept: Int64s | None = None
    """int64 (n,): samples that are loaded; None for all."""
    seconds: Schedule | None = None
    """Maximum length of clips and audio over the run; None uses the clip's."""
    progress: float = 0.0
    """Progress of the run."""
    counts: dict[Shape, Counts | None] = field(default_factory=dict, repr=False, compare=False)
    """Cache of the visible tokens and targets of each shape; None if the mask draws the number."""

    @property
    def identity(self) -> dict[str, Any]:
        """Values compared on resume in addition to the data config and the split; by default none."""
        return {}

    @property
    @abstractmethod
    def token_size(self) -> int:
        """Number of values of a token."""

    @property
    @abstractmethod
    def extremes(self) -> tuple[Shape, ...]:
        """Shapes with the fewest and the most tokens.

        Raises:
            ValueError: No shape is allowed.
        """

    @abstractmethod
    def draw(self, samples: GlobalBatch) -> NativeDraws:
        """Draw the shapes of some samples. Unusable samples have a small shape, for the sample that replaces them."""

    @abstractmethod
    def grid(self, shape: Shape) -> TokenGrid:
        """Return the grid on which the mask of a sample is drawn."""

    @abstractmethod
    def plan(self, item: Item, shape: Shape, crop: tuple[int, int] | None) -> NativePlan:
        """Plan a sample with a fixed shape in its row.

        Args:
            item: The sample.
            shape: Shape reserved in the row.
            crop: Crop that was drawn for it; None for a replacement, which must fit the shape.

        Raises:
            SampleError: The sample lacks a required member.
        """

    def index(self, number: int) -> int:
        """Convert a number to a sample of the manifest."""
        return number if self.kept is None else int(self.kept[number])

    def indexes(self, numbers: Int64s) -> Int64s:
        """Convert numbers to samples of the manifest, int64 (N,)."""
        return numbers if self.kept is None else self.kept[numbers]

    def uniform(self, samples: GlobalBatch, purpose: str) -> Float64s:
        """Draw two numbers in [0, 1) per sample for one decision: float64 (N, 2)."""
        keys = self.manifest.keys(self.indexes(samples.indexes))
        return sample_numbers(self.seed, zip(samples.epochs.tolist(), keys, strict=True), 0, purpose)

    @property
    def points_of_change(self) -> tuple[float, ...] | None:
        """Progress values at which sizes or ratios bend or jump; None if all are constant."""
        found = find_schedules(self.over_run) + ([] if self.seconds is None else [self.seconds])
        mask = self.mask
        if mask is None or not mask.needs_progress:
            return list_points(found)
        return list_points(found + find_schedules(mask)) or ()

    def at(self, progress: float) -> Self:
        """Return the samples as drawn at a progress; call on the samples of the whole run."""
        if self.points_of_change is None:
            return self
        counts = {} if self.mask is not None and self.mask.needs_progress else self.counts
        return replace(self, native=self.over_run.at(progress), progress=progress, counts=counts)

    def sizes(self, samples: GlobalBatch) -> RowSizes:
        """Return the row usage of samples.

        Raises:
            ValueError: The mask hides everything, or needs its batch.
        """
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
        """Raise ValueError if a row has no room for the smallest or a largest sample at some progress."""
        points = self.points_of_change
        for progress in (0.0,) if points is None else sorted({*points, *(k / 8 for k in range(9))}):
            self.at(progress).check_now(room)

    def check_now(self, room: Room) -> None:
        """Raise ValueError if a row has no room for an extreme sample at the current progress."""
        shapes = np.array(self.extremes, np.int64)
        # A mask that draws its count may leave all tokens but one visible.
        counts = [self._counts(tuple(one)) or (max(int(np.prod(one)) - 1, 1), 0) for one in shapes.tolist()]
        nothing = np.zeros(len(shapes), np.int64)
        draws = NativeDraws(shape=shapes, crop=np.zeros((len(shapes), 2), np.int64), pixels=nothing)
        divided(_sizes(draws, counts), room)

    def _counts(self, shape: Shape) -> Counts | None:
        """Return the visible tokens and targets of a shape; None if the mask draws the number."""
        if shape not in self.counts:
            self.counts[shape] = self._count_tokens(shape)
        return self.counts[shape]

    @cached_property
    def _draws_counts(self) -> bool:
        """Return whether the mask draws the number of visible tokens.

        Raises:
            ValueError: Packed rows do not support the mask.
        """
        draws = False
        for grid in map(self.grid, self.extremes):
            # Compare draws with nothing in common (seed, epoch and sample differ), then the same sample in other
            # batches.
            different = {_count(self._maps(grid, k, k, f"{k}")) for k in range(8)}
            places = [Place(step=k, row=k, rows=8, progress=self.progress) for k in range(8)]
            same = [self._maps(grid, 0, 0, "0", place) for place in places]
            if len(set(map(_count, same))) > 1:
                raise ValueError(
                    f"packed rows are planned before batches, but {self.mask} draws the number of visible "
                    "tokens per batch; use a fixed ratio, or one drawn per sample"
                )
            if same[0].mask_token is not None:
                raise ValueError(f"{self.mask} puts mask tokens in the encoder, which packed rows do not support")
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
                f"{self.mask} hides all tokens of {'an' if self.kind == 'image' else 'a'} {self.kind} with "
                f"{tokens} tokens; raise `least` in Native, or hide fewer"
            )
        return visible, targets

    def _drawn(self, shape: Shape, epoch: int, key: str) -> Counts:
        """Draw the counts of one sample, with at least one visible token."""
        visible, targets = _count(self._maps(self.grid(shape), self.seed, epoch, key))
        return max(visible, 1), targets

    def _maps(self, grid: TokenGrid, seed: int, epoch: int, key: str, place: Place | None = None) -> Maps:
        """Draw maps with the counts of a sample's mask."""
        assert self.mask is not None
        place, mask, cues = Place(progress=self.progress) if place is None else place, self.mask, Cues()
        if isinstance(mask, ByEnergy):  # as if nothing moved: energy determines which tokens are hidden, not how many
            (t, *places), (tubelet, *_) = grid.shape, grid.patch
            mask = replace(mask, energy="stored", motion=0.0)
            cues = Cues(energy=np.zeros((t * tubelet, *places), np.int64))
        return mask.maps(grid, Draw.of(seed, epoch, key, 0, place, cues))

    def maps(self, item: Item, shape: Shape, visible: int, cues: Cues) -> Maps:
        """Draw the mask of a sample with a fixed number of visible tokens."""
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
    """Combine draws and counts into row usage."""
    visible, targets = zip(*counts, strict=True)
    counted = [target for target in targets if target is not None]
    return RowSizes(
        shape=draws.shape,
        visible=np.array(visible, np.int64),
        target=np.array(counted, np.int64) if len(counted) == len(targets) else None,
        pixels=draws.pixels,
    )
