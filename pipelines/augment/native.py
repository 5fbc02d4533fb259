"""Native-scale crops: images keep their size and aspect ratio, and have as many tokens as patches."""

from dataclasses import dataclass, replace
from math import log
from typing import Self

import numpy as np

from maskstream.pipelines.stream.shares import Schedule
from maskstream.shards.arrays import Float64s, Int64s
from maskstream.shards.config import Config
from maskstream.shards.limits import Interval, PositiveInt, Proportion

from .crop import Crop


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NativeCrops:
    """Crops of N images: width and height in source pixels, rows and columns of patches, int64 (N,) each."""

    width: Int64s
    height: Int64s
    rows: Int64s
    columns: Int64s


@dataclass(frozen=True, kw_only=True, slots=True)
class Native(Config):
    """Divide a sample of any size into patches at its own scale and aspect ratio.

    Crops are cut to whole patches, so pixels are not resampled, unless a crop has more than `most` or fewer than
    `least` patches: it is then resized. No side is longer than the image's. The frames of a clip share one crop, and
    all of its time steps together have between `least` and `most` tokens. Audio keeps its length between `least` tokens
    (padded) and `most`.

    Sources: RandomResizedCrop (see `augment`); NaFlex of timm and SigLIP 2, which resize to whole patches up to a
    maximum number; NaViT (Dehghani et al. 2023), which packs them.

    Attributes:
        patch: Side of a patch in pixels, or in frames and bins of a spectrogram.
        tubelet: Frames per token; an image repeats its only frame.
        least: Minimum tokens of a sample, or a schedule over the run such as `masks.Piecewise`.
        most: Maximum tokens of a sample, or a schedule; takes precedence if no number of whole patches lies between the
            two.
        multiple: Rows and columns of patches are multiples of this number, for models that merge patches.
        scale: Bounds of the crop's fraction of the image area, drawn uniformly. None is (0.2, 1) when shuffled; in
            validation it is (1, 1), the whole image, with sides resized to whole patches.
        ratio: Bounds of the factor of the image's aspect ratio, drawn log-uniformly.
        flip: Probability of mirroring; None is 0.5 when shuffled, else 0.
    """

    patch: PositiveInt = 16
    tubelet: PositiveInt = 1
    least: int | Schedule = 16
    most: int | Schedule = 1024
    multiple: PositiveInt = 1
    scale: Interval | None = None
    ratio: tuple[float, float] = (0.75, 4 / 3)
    flip: Proportion | None = None

    def validate(self) -> None:
        if not isinstance(self.most, Schedule) and self.most < self.multiple**2:
            raise ValueError(
                f"most={self.most} is too small: with multiple={self.multiple} an image has at least "
                f"{self.multiple**2} tokens"
            )
        changes = isinstance(self.least, Schedule) or isinstance(self.most, Schedule)
        if not changes and not 1 <= self.limits[0] <= self.limits[1]:
            raise ValueError(
                f"least and most must satisfy 1 <= least <= most, got least={self.least}, most={self.most}"
            )
        if not 0 < self.ratio[0] <= 1 <= self.ratio[1]:
            raise ValueError(
                "ratio must be the lowest and the highest factor of the aspect ratio, with lowest <= 1 <= "
                f"highest, got {self.ratio}"
            )

    @property
    def limits(self) -> tuple[int, int]:
        """`least` and `most` as numbers.

        Raises:
            ValueError: They change over the run; use `at` first.
        """
        if isinstance(self.least, Schedule) or isinstance(self.most, Schedule):
            raise ValueError(f"{self} changes during the run; use at(progress) to get its sizes")
        return self.least, self.most

    def at(self, progress: float) -> Self:
        """Return the config with the sizes at a progress of the run, rounded to whole tokens.

        Raises:
            ValueError: A size is not allowed.
        """
        least, most = (
            round(size.at(progress)) if isinstance(size, Schedule) else size for size in (self.least, self.most)
        )
        return replace(self, least=least, most=most)

    def resolved(self, *, shuffle: bool) -> Self:
        """Fill in all defaults."""
        scale = ((0.2, 1.0) if shuffle else (1.0, 1.0)) if self.scale is None else self.scale
        flip = (0.5 if shuffle else 0.0) if self.flip is None else self.flip
        return replace(self, scale=scale, flip=flip)

    def crops(
        self,
        width: Int64s,
        height: Int64s,
        numbers: Float64s,
        steps: Int64s | None = None,
    ) -> NativeCrops:
        """Compute the crops of N images; call on a resolved config.

        Args:
            width: int64 (N,), at least 1.
            height: int64 (N,), at least 1.
            numbers: float64 (N, 2), uniform numbers in [0, 1) for area and aspect ratio.
            steps: int64 (N,), time steps of clips, which share `least` and `most`; None for one each. `most` must
                suffice for `multiple` x `multiple` tokens in each.
        """
        times: Int64s = np.ones_like(width) if steps is None else steps
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
        # Rounding may have produced too many or too few: adjust the longer side.
        longer, shorter = np.maximum(columns, rows), np.minimum(columns, rows)
        longer = np.minimum(np.maximum(longer, -(-least // shorter)), most // shorter)
        columns, rows = np.where(columns >= rows, (longer, shorter), (shorter, longer))
        if not whole:
            native = (wide >= columns * side) & (tall >= rows * side) & (shrunk == 1)
            wide = np.where(native, columns * side, wide)
            tall = np.where(native, rows * side, tall)
        return NativeCrops(width=wide, height=tall, rows=rows * self.multiple, columns=columns * self.multiple)

    def place(self, width: int, height: int, wide: int, tall: int, rng: np.random.Generator) -> Crop:
        """Draw the position of a wide x tall crop in an image of width x height pixels."""
        x, y = int(rng.integers(width - wide + 1)), int(rng.integers(height - tall + 1))
        return Crop(x=x, y=y, width=wide, height=tall, flip=bool(rng.random() < (self.flip or 0.0)))

    def fitting(self, width: int, height: int, rows: int, columns: int) -> tuple[int, int]:
        """Return the width and height of the crop that becomes rows x columns patches, for an image of any size.

        It has native scale if the image is large enough, and is otherwise the largest crop with that aspect ratio.
        """
        wide, tall = columns * self.patch, rows * self.patch
        shrink = min(width / wide, height / tall, 1.0)
        return min(max(int(wide * shrink), 1), width), min(max(int(tall * shrink), 1), height)
