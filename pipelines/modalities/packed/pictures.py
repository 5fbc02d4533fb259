"""Pictures for packed rows: their sizes by the manifest alone, and the tokens of one."""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.augment.native import Native, NativeCrops
from maskstream.pipelines.masks import Cues, Draw, Mask, TokenGrid
from maskstream.pipelines.modalities.image.data import ImagePlan, held_image
from maskstream.pipelines.modalities.image.decode import show
from maskstream.pipelines.modalities.rows import Item
from maskstream.pipelines.stream.order import GlobalBatch, Int64Array
from maskstream.pipelines.stream.rng import Place, sample_numbers
from maskstream.pipelines.stream.row_order import Room, RowSizes, divided
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.limits import MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class ShapeCounts:
    """The visible tokens and the targets of a picture of any shape. They are counted once for each shape."""

    mask: Mask | None
    patch: int
    known: dict[tuple[int, int], tuple[int, int | None]] = field(default_factory=dict, repr=False, compare=False)

    def sizes(self, shapes: Int64Array, pixels: Int64Array) -> RowSizes:
        """What pictures of some shapes, int64 (N, 2), take of a row; ValueError for a mask that draws how many tokens
        are visible, or that hides all.
        """
        different, of = np.unique(shapes, axis=0, return_inverse=True)
        visible, targets = zip(*(self._of(*shape) for shape in different.tolist()), strict=True)
        counted = [target for target in targets if target is not None]
        own = of.reshape(-1)
        return RowSizes(
            shape=np.concatenate([np.ones((len(shapes), 1), np.int64), shapes], axis=1),
            visible=np.array(visible, np.int64)[own],
            target=np.array(counted, np.int64)[own] if len(counted) == len(targets) else None,
            pixels=pixels,
        )

    def _of(self, rows: int, columns: int) -> tuple[int, int | None]:
        """The visible tokens of rows x columns, and the targets, None where these are the hidden tokens."""
        if (rows, columns) not in self.known:
            self.known[rows, columns] = self._counted(rows, columns)
        return self.known[rows, columns]

    def _counted(self, rows: int, columns: int) -> tuple[int, int | None]:
        if self.mask is None:
            return rows * columns, 0
        # Three draws that share no number: of another seed, epoch, sample and batch each.
        grid = picture_grid(rows, columns, self.patch)
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
            raise ValueError(
                f"{self.mask} hides all {rows * columns} tokens of a picture of {rows} x {columns}; raise `least` of "
                "Native, or hide fewer"
            )
        return visible, targets


@dataclass(frozen=True, kw_only=True)
class NativePictures:
    """The pictures of a split: `sizes` plans rows with them, `plan` and `fill` make the tokens of one."""

    manifest: Manifest
    components: tuple[str, ...]
    native: Native
    counts: ShapeCounts
    colour: ColourJitter | None
    seed: int

    def crops(self, samples: GlobalBatch) -> NativeCrops:
        """The crops of some samples. A sample without a usable picture has that of one patch, for what replaces it."""
        manifest, indexes, side = self.manifest, samples.indexes, self.native.patch
        width, height, held = (np.zeros(len(indexes), np.int64) for _ in range(3))
        for component in map(manifest.component, self.components):
            there = component.offset[indexes] > 0
            held += there
            width += np.where(there, component.facts["width"][indexes], 0)
            height += np.where(there, component.facts["height"][indexes], 0)
        usable = (held == 1) & (width > 0) & (height > 0) & (width <= MAX_PIXELS // np.maximum(height, 1))
        named = zip(samples.epochs.tolist(), manifest.keys(indexes), strict=True)
        numbers = sample_numbers(self.seed, named, 0, "native")
        return self.native.crops(np.where(usable, width, side), np.where(usable, height, side), numbers)

    def sizes(self, samples: GlobalBatch) -> RowSizes:
        """What each sample takes of a row."""
        crops = self.crops(samples)
        return self.counts.sizes(np.stack([crops.rows, crops.columns], axis=1), crops.width * crops.height)

    def check(self, room: Room) -> None:
        """ValueError where a row has no room for the smallest picture, or for one of the largest, square or a line."""
        least, most = self.native.least, self.native.most
        side = int(most**0.5)
        shapes = np.array([(1, least), (side, most // side), (1, most)])
        divided(self.counts.sizes(shapes, np.zeros(len(shapes), np.int64)), room)

    def plan(self, item: Item, rows: int, columns: int, crop: tuple[int, int] | None) -> ImagePlan:
        """The plan of a picture of rows x columns patches; crop: the width and height of its crop, None for a sample
        that replaces another, whose picture is cropped to that one's shape. SampleError if it has no usable picture.
        """
        name, width, height = held_image(item.manifest, item.index, self.components)
        native, side = self.native, self.native.patch
        wide, tall = native.fitting(width, height, rows, columns) if crop is None else crop
        placed = native.place(width, height, wide, tall, item.rng("crop"))
        return ImagePlan.of(item, name, (width, height), [placed], (columns * side, rows * side))

    def fill(
        self, item: Item, plan: ImagePlan, rows: int, columns: int, out: npt.NDArray[np.uint8], stats: Stats
    ) -> None:
        """Writes the tokens of a picture: uint8 (rows * columns, tubelet * p * p * 3); SampleError if it is bad."""
        side, tubelet = self.native.patch, self.native.tubelet
        pixels = plan.decoded(item, stats)
        with stats.stage("convert"):
            crop, height, width = plan.crops[0], rows * side, columns * side
            if plan.n == 1 and (crop.height, crop.width) == (height, width):  # of native scale
                picture = pixels[crop.y : crop.y + height, crop.x : crop.x + width][:, :: -1 if crop.flip else 1]
                picture = np.ascontiguousarray(picture)
            else:
                picture = np.empty((height, width, 3), np.uint8)
                show(pixels, crop, plan.n, picture)
            if self.colour is not None:
                self.colour(picture, item.rng("colour"))
            patches = picture.reshape(rows, side, columns, side, 3).transpose(0, 2, 1, 3, 4)
            out.reshape(rows, columns, tubelet, side, side, 3)[:] = patches[:, :, None]


@lru_cache(maxsize=4096)
def picture_grid(rows: int, columns: int, patch: int) -> TokenGrid:
    """The (h, w) grid of a picture of rows x columns patches."""
    return TokenGrid(axes=("h", "w"), shape=(rows, columns), patch=(patch, patch))
