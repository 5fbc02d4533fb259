"""Crops of a video's frames, drawn once per clip before decoding."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import exp, log, sqrt
from typing import Annotated

import numpy as np

from maskstream.shards.config import Config
from maskstream.shards.limits import FILLED, Interval, NaturalInt, PositiveInterval, PositiveProportion, Proportion


@dataclass(frozen=True, kw_only=True, slots=True)
class Crop:
    """A rectangle in source pixels: columns x to x + width - 1, rows y to y + height - 1.

    Attributes:
        x: Left column.
        y: Top row.
        width: Width in pixels.
        height: Height in pixels.
        flip: Mirror the clip left to right after cropping and resizing.
    """

    x: int
    y: int
    width: int
    height: int
    flip: bool = False


class Augmentation(Config, ABC):
    """Base class of random crop rules; subclasses are frozen configs.

    Attributes:
        flip: Probability of mirroring.
    """

    __slots__ = ()

    flip: float

    @abstractmethod
    def rectangle(self, width: int, height: int, size: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draw x, y, width and height of a crop of a width x height frame, to be resized to size x size."""

    def draw(self, width: int, height: int, size: int, rng: np.random.Generator) -> Crop:
        """Draw a crop of a frame of `width` x `height` pixels for an output of `size` x `size`.

        Raises:
            ValueError: One of the three is less than 1.
        """
        if min(width, height, size) < 1:
            raise ValueError(
                "the frame and the output of a crop must be at least 1 pixel in each direction, got "
                f"{width=}, {height=}, {size=}"
            )
        x, y, crop_width, crop_height = self.rectangle(width, height, size, rng)
        flip = self.flip > 0 and bool(rng.random() < self.flip)
        return Crop(x=x, y=y, width=crop_width, height=crop_height, flip=flip)

    def views(self, width: int, height: int, size: int, rngs: Sequence[np.random.Generator]) -> list[Crop]:
        """Draw the crops of a sample's views, independently, with one generator each."""
        return [self.draw(width, height, size, rng) for rng in rngs]


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiScaleCrop(Augmentation):
    """Crop with sides that are fractions of the frame's short side, at one of 13 fixed positions.

    A side within 3 pixels of the output size is set to it, which avoids resampling. The positions are the corners, the
    centre, the centres of the edges and the quarter points. Source: VideoMAE's pre-training (Tong et al. 2022), without
    a flip, after TSN (Wang et al. 2016).

    Attributes:
        scales: Fractions from which width and height are drawn.
        max_distort: Maximum distance between the width's and the height's entry in `scales`.
        flip: Probability of mirroring.
    """

    scales: Annotated[tuple[PositiveProportion, ...], FILLED] = (1.0, 0.875, 0.75, 0.66)
    max_distort: NaturalInt = 1
    flip: Proportion = 0.0

    def rectangle(self, width: int, height: int, size: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        pairs = _compute_sides(min(width, height), size, tuple(self.scales), self.max_distort)
        wide, high = pairs[rng.integers(len(pairs))]
        column, row = PLACES[rng.integers(len(PLACES))]
        return (width - wide) // 4 * column, (height - high) // 4 * row, wide, high


@lru_cache(maxsize=256)
def _compute_sides(short: int, size: int, scales: tuple[float, ...], max_distort: int) -> tuple[tuple[int, int], ...]:
    """Return the possible widths and heights of a MultiScaleCrop in frames with this short side."""
    lengths = [max(int(short * scale), 1) for scale in scales]
    lengths = [min(size, short) if abs(length - size) < 3 else length for length in lengths]
    steps = range(len(lengths))
    return tuple((lengths[i], lengths[j]) for i in steps for j in steps if abs(i - j) <= max_distort)


PLACES = (
    *((0, 0), (4, 0), (0, 4), (4, 4), (2, 2)),
    *((0, 2), (4, 2), (2, 4), (2, 0)),
    *((1, 1), (3, 1), (1, 3), (3, 3)),
)
"""Positions (x, y) of MultiScaleCrop, in quarters of the largest possible offset."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomResizedCrop(Augmentation):
    """Crop with random area, aspect ratio and position.

    After 10 draws that do not fit into the frame, the crop is the largest centred one within `ratio`. Source: MAE-ST
    (Feichtenhofer et al. 2022), which mirrors with probability 0.5.

    Attributes:
        scale: Bounds of the crop's fraction of the frame area, drawn uniformly.
        ratio: Bounds of width / height, drawn log-uniformly.
        flip: Probability of mirroring.
    """

    scale: Interval = (0.5, 1.0)
    ratio: PositiveInterval = (0.75, 4 / 3)
    flip: Proportion = 0.0

    def rectangle(self, width: int, height: int, size: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = width * height * rng.uniform(*self.scale)
            aspect = exp(rng.uniform(log(self.ratio[0]), log(self.ratio[1])))
            crop_width, crop_height = round(sqrt(area * aspect)), round(sqrt(area / aspect))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                x, y = rng.integers(width - crop_width + 1), rng.integers(height - crop_height + 1)
                return int(x), int(y), crop_width, crop_height
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        return centred(width, height, round(height * aspect), round(width / aspect))


@dataclass(frozen=True, kw_only=True, slots=True)
class NestedCrop(Augmentation):
    """Random crop for the first view, and random crops of that crop for the others.

    Source: CropMAE's global-to-local views (Eymael et al. 2024, 3.1).

    Attributes:
        whole: Scale and ratio of the first crop.
        part: Scale and ratio of the other crops, relative to the first.
        flip: Probability of mirroring, drawn separately for each view.
    """

    whole: RandomResizedCrop = field(default_factory=lambda: RandomResizedCrop(scale=(0.1, 1.0)))
    part: RandomResizedCrop = field(default_factory=lambda: RandomResizedCrop(scale=(0.3, 0.6)))
    flip: Proportion = 0.5

    def rectangle(self, width: int, height: int, size: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        return self.whole.rectangle(width, height, size, rng)

    def views(self, width: int, height: int, size: int, rngs: Sequence[np.random.Generator]) -> list[Crop]:
        first, *others = rngs
        crops = [self.draw(width, height, size, first)]
        outer = crops[0]
        for rng in others:
            inner = replace(self.part, flip=self.flip).draw(outer.width, outer.height, size, rng)
            crops.append(replace(inner, x=outer.x + inner.x, y=outer.y + inner.y))
        return crops


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedCrop(Augmentation):
    """One crop for all views of a sample; the views differ only in their masks.

    V-JEPA (Bardes et al. 2024) masks one crop of a clip twice: views=2 with its two masks (see `ByView`).

    Attributes:
        crop: Rule that draws the crop.
    """

    crop: Augmentation = field(default_factory=MultiScaleCrop)

    def rectangle(self, width: int, height: int, size: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        return self.crop.rectangle(width, height, size, rng)

    def draw(self, width: int, height: int, size: int, rng: np.random.Generator) -> Crop:
        return self.crop.draw(width, height, size, rng)

    def views(self, width: int, height: int, size: int, rngs: Sequence[np.random.Generator]) -> list[Crop]:
        return [self.draw(width, height, size, rngs[0])] * len(rngs)


@dataclass(frozen=True, kw_only=True, slots=True)
class CenterCrop(Augmentation):
    """Largest centred square; only the flip is random.

    Attributes:
        flip: Probability of mirroring.
    """

    flip: Proportion = 0.0

    def rectangle(self, width: int, height: int, size: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        return centred(width, height, height, width)


def centred(width: int, height: int, crop_width: int, crop_height: int) -> tuple[int, int, int, int]:
    """Return x, y, width and height of a centred crop; its sides are clamped to [1, width] and [1, height]."""
    crop_width, crop_height = max(min(crop_width, width), 1), max(min(crop_height, height), 1)
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height
