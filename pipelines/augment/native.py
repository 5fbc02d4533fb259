"""Crops of native scale: pictures keep their size and aspect, and become as many tokens as they have patches."""

from dataclasses import dataclass, replace
from math import log
from typing import Self

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.stream.shares import Schedule
from maskstream.shards.config import Config, check_types

from .crop import Crop, check_flip

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NativeCrops:
    """Crops of N pictures: width, height in source pixels and rows, columns of patches, int64 (N,) each."""

    width: Int64Array
    height: Int64Array
    rows: Int64Array
    columns: Int64Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Native(Config):
    """How a sample of any size becomes patches, at its own scale and aspect.

    A crop has a share of the picture's area from `scale`, drawn uniformly. Its aspect is the picture's times a factor
    from `ratio`, drawn log-uniformly; no side is longer than the picture's. It is cut to whole patches, so its pixels
    are not resampled. Only a crop of more than `most` patches, or of fewer than `least`, is resized until it has so
    many.

    The frames of a clip have one crop, and all of its time steps together have from `least` to `most` tokens. A sound
    is as long as it is, from `least` tokens, up to which it is filled, to `most`.

    patch: the side of a patch in pixels, or in frames and bins of a spectrogram. tubelet: the frames of a token; a
    picture repeats its one. least, most: the fewest and the most tokens of a sample; where the two are so near that no
    whole patches have a number between them, `most` holds. Both may follow a schedule over the run, such as
    `masks.Piecewise`. multiple: rows and columns of patches are multiples of it, as models need that merge patches.
    scale: None (the default) is (0.2, 1) when shuffled; in validation it is (1, 1), the whole picture, whose sides are
    resized to whole patches. flip: the probability of mirroring; None is 0.5 when shuffled, else 0.

    Sources: RandomResizedCrop (see `augment`); NaFlex of timm and SigLIP 2, which resize to whole patches and at most
    so many; NaViT (Dehghani et al. 2023), which packs them.
    """

    patch: int = 16
    tubelet: int = 1
    least: int | Schedule = 16
    most: int | Schedule = 1024
    multiple: int = 1
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (0.75, 4 / 3)
    flip: float | None = None

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("patch", "tubelet", "multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: it is 1 or more")
        if not isinstance(self.most, Schedule) and self.most < self.multiple**2:
            raise ValueError(
                f"most={self.most}: with multiple={self.multiple} a picture has {self.multiple**2} or more"
            )
        changes = isinstance(self.least, Schedule) or isinstance(self.most, Schedule)
        if not changes and not 1 <= self.limits[0] <= self.limits[1]:
            raise ValueError(
                f"a picture has from `least` to `most` tokens, 1 <= least <= most, got least={self.least}, "
                f"most={self.most}"
            )
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale is the lowest and highest share of the area, in (0, 1], got {self.scale}")
        if not 0 < self.ratio[0] <= 1 <= self.ratio[1]:
            raise ValueError(f"ratio is the lowest and highest factor of the aspect, around 1, got {self.ratio}")
        if self.flip is not None:
            check_flip(self.flip)

    @property
    def limits(self) -> tuple[int, int]:
        """`least` and `most`; ValueError where they change over the run, and only `at` a progress are numbers."""
        if isinstance(self.least, Schedule) or isinstance(self.most, Schedule):
            raise ValueError(f"{self} changes over the run: it has sizes `at` a progress")
        return self.least, self.most

    def at(self, progress: float) -> Self:
        """The same with the sizes at a progress of the run, rounded to whole tokens; ValueError for illegal ones."""
        least, most = (
            round(size.at(progress)) if isinstance(size, Schedule) else size for size in (self.least, self.most)
        )
        return replace(self, least=least, most=most)

    def resolved(self, *, shuffle: bool) -> Self:
        """The same with all defaults filled in."""
        scale = ((0.2, 1.0) if shuffle else (1.0, 1.0)) if self.scale is None else self.scale
        flip = (0.5 if shuffle else 0.0) if self.flip is None else self.flip
        return replace(self, scale=scale, flip=flip)

    def crops(
        self,
        width: Int64Array,
        height: Int64Array,
        numbers: npt.NDArray[np.float64],
        steps: Int64Array | None = None,
    ) -> NativeCrops:
        """The crops of N pictures of width x height pixels, int64 (N,) from 1 on, by two numbers in [0, 1) for each,
        float64 (N, 2), the first for the area, the second for the aspect; called on a resolved config.

        steps: int64 (N,), the time steps of clips, which share `least` and `most`; None for one each. `most` tokens are
        enough for `multiple` x `multiple` in each.
        """
        times: Int64Array = np.ones_like(width) if steps is None else steps
        low, high = self.scale or (1.0, 1.0)
        if whole := low == 1.0:
            wide, tall = width, height
        else:
            area = low + (high - low) * numbers[:, 0]
            # Rounded, since the last bit of exp may differ between machines, and a crop must not.
            first, last = log(self.ratio[0]), log(self.ratio[1])
            factor = np.exp(first + (last - first) * numbers[:, 1]).round(9)
            wide = np.minimum(np.rint(width * np.sqrt(area * factor)), width).astype(np.int64).clip(1)
            tall = np.minimum(np.rint(height * np.sqrt(area / factor)), height).astype(np.int64).clip(1)
        # Counted in squares of multiple x multiple patches.
        side, patches_each = self.patch * self.multiple, self.multiple**2
        fewest, largest = self.limits
        least, most = -(-fewest // (times * patches_each)), largest // (times * patches_each)
        across, down = wide / side, tall / side
        patches = across * down
        shrunk = np.sqrt(np.minimum(most / patches, 1.0))
        grown = np.sqrt(np.maximum(least / patches, 1.0))
        columns, rows = (
            np.where(
                grown > 1,
                np.ceil((n * grown).round(6)),
                np.where(whole & (shrunk == 1), np.rint(n), np.floor((n * shrunk).round(6))),
            )
            .clip(1, most)
            .astype(np.int64)
            for n in (across, down)
        )
        # Rounding may have made them too many or too few: the longer side gives way.
        longer, shorter = np.maximum(columns, rows), np.minimum(columns, rows)
        longer = np.minimum(np.maximum(longer, -(-least // shorter)), most // shorter)
        columns, rows = np.where(columns >= rows, (longer, shorter), (shorter, longer))
        if not whole:
            native = (wide >= columns * side) & (tall >= rows * side) & (shrunk == 1)
            wide = np.where(native, columns * side, wide)
            tall = np.where(native, rows * side, tall)
        return NativeCrops(width=wide, height=tall, rows=rows * self.multiple, columns=columns * self.multiple)

    def place(self, width: int, height: int, wide: int, tall: int, rng: np.random.Generator) -> Crop:
        """A crop of wide x tall pixels at a random place of a picture of width x height."""
        x, y = int(rng.integers(width - wide + 1)), int(rng.integers(height - tall + 1))
        return Crop(x=x, y=y, width=wide, height=tall, flip=bool(rng.random() < (self.flip or 0.0)))

    def fitting(self, width: int, height: int, rows: int, columns: int) -> tuple[int, int]:
        """Width and height of the crop of a width x height picture that becomes rows x columns patches, whatever its
        own size: of native scale where the picture is large enough, else the largest of that aspect.
        """
        wide, tall = columns * self.patch, rows * self.patch
        shrink = min(width / wide, height / tall, 1.0)
        return min(max(int(wide * shrink), 1), width), min(max(int(tall * shrink), 1), height)
