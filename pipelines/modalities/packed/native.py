"""What samples of one kind say of themselves, so that they stand in a row with others: the seam of packed rows.

    draw(samples)           their shapes and crops, by the manifest alone; so rows are planned
    plan(item, shape, ...)  what else is drawn of one, and the bytes to read
    plan.fill(...)          reads and decodes it, and writes its tokens

A new kind is a subclass of `NativeSamples`, a plan, and its name in `KINDS`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.augment.native import Native
from maskstream.pipelines.masks import Cues, Draw, Mask, TokenGrid
from maskstream.pipelines.modalities.fields import FieldReader
from maskstream.pipelines.modalities.rows import Item
from maskstream.pipelines.stream.order import GlobalBatch, Int64Array
from maskstream.pipelines.stream.rng import Place, sample_numbers
from maskstream.pipelines.stream.row_order import Room, RowSizes, divided
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.base import Range

Shape = tuple[int, int, int]
"""The tokens of a sample along t, h and w."""


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

    def fill(self, item: Item, out: npt.NDArray[Any], stats: Stats) -> None:
        """Writes the tokens, (t * h * w, token_size) of the kind's dtype; SampleError if the sample is unusable."""


@dataclass(frozen=True, kw_only=True)
class NativeSamples(ABC):
    """The samples of a split that are of one kind.

    components: the members that hold them. native: resolved. kept: int64 (n,), the samples that are numbered here, None
    for all. counts: the visible tokens and the targets of each shape, which are counted once.
    """

    kind: ClassVar[str]
    dtype: ClassVar[type[np.uint8] | type[np.float32]] = np.uint8

    manifest: Manifest
    components: tuple[str, ...]
    native: Native
    mask: Mask | None
    fields: FieldReader
    seed: int
    kept: Int64Array | None = None
    counts: dict[Shape, tuple[int, int | None]] = field(default_factory=dict, repr=False, compare=False)

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

    def sizes(self, samples: GlobalBatch) -> RowSizes:
        """What each sample takes of a row."""
        draws = self.draw(samples)
        return self.sizes_of(draws.shape, draws.pixels)

    def sizes_of(self, shape: Int64Array, pixels: Int64Array) -> RowSizes:
        """What samples of some shapes take of a row; ValueError for a mask that draws how many tokens are visible, or
        that hides all.
        """
        different, of = np.unique(shape, axis=0, return_inverse=True)
        visible, targets = zip(*(self._counts(*one) for one in different.tolist()), strict=True)
        counted = [target for target in targets if target is not None]
        own = of.reshape(-1)
        return RowSizes(
            shape=shape,
            visible=np.array(visible, np.int64)[own],
            target=np.array(counted, np.int64)[own] if len(counted) == len(targets) else None,
            pixels=pixels,
        )

    def check(self, room: Room) -> None:
        """ValueError where a row has no room for the smallest sample, or for one of the largest."""
        shapes = np.array(self.extremes, np.int64)
        divided(self.sizes_of(shapes, np.zeros(len(shapes), np.int64)), room)

    def _counts(self, t: int, h: int, w: int) -> tuple[int, int | None]:
        """The visible tokens of a shape, and the targets, None where these are the hidden tokens."""
        if (t, h, w) not in self.counts:
            self.counts[t, h, w] = self._counted((t, h, w))
        return self.counts[t, h, w]

    def _counted(self, shape: Shape) -> tuple[int, int | None]:
        grid = self.grid(shape)
        if self.mask is None:
            return grid.size, 0
        # Three draws that share no number: of another seed, epoch, sample and batch each.
        drawn = [self.mask.maps(grid, Draw.of(k, k, f"{k}", 0, Place(step=k), Cues())) for k in range(3)]
        counts = [
            (int(np.count_nonzero(~one.hidden)), None if one.target is None else int(np.count_nonzero(one.target)))
            for one in drawn
        ]
        if len(set(counts)) > 1:
            raise ValueError(
                f"packed rows are planned before masks are drawn, so a shape must decide how many tokens are visible; "
                f"{self.mask} draws how many: give a ratio that is a number"
            )
        visible, targets = counts[0]
        if drawn[0].mask_token is not None:
            raise ValueError(f"{self.mask} has mask tokens in the encoder, which packed rows do not have")
        if not visible:
            tokens = " x ".join(map(str, grid.shape))
            raise ValueError(
                f"{self.mask} hides all tokens of {'an' if self.kind == 'image' else 'a'} {self.kind} of {tokens}; "
                "raise `least` of Native, or hide fewer"
            )
        return visible, targets
