"""Images for packed rows: sizes from the manifest alone, and the tokens of an image."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from maskstream.pipelines.augment.transform import FrameChanges
from maskstream.pipelines.masks import Cues, TokenGrid
from maskstream.pipelines.modalities.image.data import ImagePlan, find_held_image
from maskstream.pipelines.modalities.image.decode import PIXELS_VERSION, show
from maskstream.pipelines.modalities.rows import Item
from maskstream.pipelines.stream.order import GlobalBatch
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import UInt8s
from maskstream.shards.media.limits import MAX_PIXELS
from maskstream.shards.stores.base import Range

from .native import NativeDraws, NativeSamples, Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class PicturePlan:
    """An image to read, and its crop, which becomes `shape` patches of `patch` pixels."""

    image: ImagePlan
    shape: Shape
    patch: int
    changes: FrameChanges

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Byte range of the image."""
        return self.image.ranges

    @property
    def held(self) -> int:
        """Number of tokens that are not padding: all of them."""
        return self.shape[1] * self.shape[2]

    def fill(self, item: Item, out: UInt8s, stats: Stats) -> Cues:
        """Write the tokens of the image, uint8 (h * w, tubelet * p * p * 3).

        Raises:
            SampleError: The image is unusable.
        """
        side, (_, rows, columns) = self.patch, self.shape
        pixels = self.image.decoded(item, stats)
        with stats.stage("convert"):
            crop, height, width = self.image.crops[0], rows * side, columns * side
            if self.image.n == 1 and (crop.height, crop.width) == (height, width):  # native scale
                picture = pixels[crop.y : crop.y + height, crop.x : crop.x + width][:, :: -1 if crop.flip else 1]
                picture = np.ascontiguousarray(picture)
            else:
                picture = np.empty((height, width, 3), np.uint8)
                show(pixels, crop, self.image.n, picture)
            self.changes.apply(picture[None], item.rng)
            patches = picture.reshape(rows, side, columns, side, 3).transpose(0, 2, 1, 3, 4)
            out.reshape(rows, columns, -1, side, side, 3)[:] = patches[:, :, None]
        return Cues()


@dataclass(frozen=True, kw_only=True)
class NativePictures(NativeSamples):
    """Images of a split. An image is one time step, which a tubelet repeats."""

    kind: ClassVar[str] = "image"
    changes: FrameChanges

    @property
    def identity(self) -> dict[str, Any]:
        """Version of the pixel arithmetic."""
        return {"pixels": PIXELS_VERSION}

    @property
    def token_size(self) -> int:
        """Number of values of a token."""
        return self.native.tubelet * self.native.patch**2 * 3

    @property
    def extremes(self) -> tuple[Shape, ...]:
        """The smallest image, and two of the largest: a square and a line."""
        least, most = self.native.limits
        side = int(most**0.5)
        return (1, 1, least), (1, side, most // side), (1, 1, most)

    def draw(self, samples: GlobalBatch) -> NativeDraws:
        """Draw the crops of some samples. A sample without a usable image has a crop of one patch."""
        manifest, indexes, side = self.manifest, self.indexes(samples.indexes), self.native.patch
        width, height, held = (np.zeros(len(indexes), np.int64) for _ in range(3))
        for component in map(manifest.component, self.components):
            there = component.offset[indexes] > 0
            held += there
            width += np.where(there, component.facts["width"][indexes], 0)
            height += np.where(there, component.facts["height"][indexes], 0)
        usable = (held == 1) & (width > 0) & (height > 0) & (width <= MAX_PIXELS // np.maximum(height, 1))
        width, height = np.where(usable, width, side), np.where(usable, height, side)
        crops = self.native.crops(width, height, self.uniform(samples, "native"))
        return NativeDraws(
            shape=np.stack([np.ones_like(crops.rows), crops.rows, crops.columns], axis=1),
            crop=np.stack([crops.width, crops.height], axis=1),
            pixels=width * height,
        )

    def grid(self, shape: Shape) -> TokenGrid:
        """Return the (h, w) grid of an image."""
        return compute_picture_grid(*shape[1:], self.native.patch)

    def plan(self, item: Item, shape: Shape, crop: tuple[int, int] | None) -> PicturePlan:
        """Plan an image.

        Raises:
            SampleError: The sample has no usable image.
        """
        name, width, height = find_held_image(item.manifest, item.index, self.components)
        native, (_, rows, columns) = self.native, shape
        wide, tall = native.fitting(width, height, rows, columns) if crop is None else crop
        placed = native.place(width, height, wide, tall, item.rng("crop"))
        out = columns * native.patch, rows * native.patch
        image = ImagePlan.of(item, name, (width, height), [placed], out)
        return PicturePlan(image=image, shape=shape, patch=native.patch, changes=self.changes)


@lru_cache(maxsize=4096)
def compute_picture_grid(rows: int, columns: int, patch: int) -> TokenGrid:
    """Return the (h, w) grid of an image of rows x columns patches."""
    return TokenGrid(axes=("h", "w"), shape=(rows, columns), patch=(patch, patch))
