"""Rectangles of an image: random ones until enough tokens are hidden, or the box that a phrase refers to."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import exp, log, sqrt

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core import (
    PICTURE,
    Draw,
    Mask,
    Ratio,
    Rounding,
    Scheme,
    TokenGrid,
    as_schedule,
    square,
)
from maskstream.pipelines.masks.schedules.random import UniformCount
from maskstream.shards.arrays import Bools
from maskstream.shards.limits import NaturalInt, PositiveInt, PositiveProportion

from .padded import Padded
from .random import adjust_map, draw_random_tokens

ATTEMPTS = 10
"""Consecutive rejected rectangles after which single tokens complete the count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block(Mask):
    """Hide rectangles with random position, area and aspect ratio in the plane h x w.

    A rectangle's area is uniform between `least` tokens and the number left to hide, its aspect h / w log-uniform
    between `aspect` and 1 / `aspect`. It is smaller than the plane in both directions. Rectangles that would hide too
    many tokens, or none that are visible, are rejected; after 10 consecutive rejections, random single tokens complete
    the count.

    The grid's axes are (h, w) or (t, h, w); with time, each step gets its own rectangles, and its own ratio if the
    schedule has scope "frame". At ratio 0.4, 78 of 14 x 14 tokens are hidden; BEiT hides 75: ratio=UniformCount(low=75,
    high=75). Source: BEiT (Bao et al. 2021, blockwise masking).

    Attributes:
        ratio: Fraction of hidden tokens, or a ratio schedule.
        rounding: Conversion of the ratio to a count; see core/ratio.py.
        least: Smallest area of a rectangle in tokens.
        aspect: Smallest aspect ratio h / w, in (0, 1].
        exact: True completes the count with single tokens. False leaves them visible, as published; counts then differ
            between samples (see `Padded`).
    """

    ratio: Ratio = 0.4
    rounding: Rounding = "floor_masked"
    least: PositiveInt = 16
    aspect: PositiveProportion = 0.3
    exact: bool = True

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        if grid.axes != ("h", "w"):
            grid.need("t", "h", "w", by="Block")
        h, w = grid.shape[-2:]
        schedule, rng = as_schedule(self.ratio), draw.rng
        visible = schedule.visible_per_frame(grid.size // (h * w), h * w, draw, self.rounding)
        numbers = draw_uniform_numbers(rng)
        maps = [unpacked(self._draw_rectangles(h, w, h * w - v, numbers), h * w) for v in visible]
        if self.exact:
            maps = [adjust_map(m, v, rng) for m, v in zip(maps, visible, strict=True)]
        return np.concatenate(maps)

    def _draw_rectangles(self, height: int, width: int, hidden: int, numbers: Iterator[float]) -> int:
        """Hide up to `hidden` tokens in rectangles; returns a bitmap as an integer, the plane's first token lowest."""
        plane, left, misses, spread = 0, hidden, 0, log(self.aspect)
        while left and misses < ATTEMPTS:
            area = self.least + (left - self.least) * next(numbers)
            aspect = exp(spread * (2 * next(numbers) - 1))
            h, w = round(sqrt(area * aspect)), round(sqrt(area / aspect))
            if not (0 < h < height and 0 < w < width):
                misses += 1
                continue
            top, column = int(next(numbers) * (height - h + 1)), int(next(numbers) * (width - w + 1))
            block = rectangle(h, w, width) << (top * width + column)
            new = (block & ~plane).bit_count()
            if 0 < new <= left:
                plane, left, misses = plane | block, left - new, 0
            else:
                misses += 1
        return plane


def draw_uniform_numbers(rng: np.random.Generator) -> Iterator[float]:
    """Yield uniform numbers in [0, 1), drawn 64 at a time."""
    while True:
        yield from rng.random(64).tolist()


@lru_cache(maxsize=4096)
def rectangle(h: int, w: int, width: int) -> int:
    """Return the bitmap of h x w tokens in the first corner of a plane `width` tokens wide."""
    row: int = (1 << w) - 1
    return sum(row << (i * width) for i in range(h))


def unpacked(bits: int, n: int) -> Bools:
    """Unpack the lowest `n` bits of an integer, lowest first: bool (n,)."""
    data = np.frombuffer(bits.to_bytes((n + 7) // 8, "little"), dtype=np.uint8)
    return np.unpackbits(data, count=n, bitorder="little").view(np.bool_)


@dataclass(frozen=True, kw_only=True, slots=True)
class Box(Mask):
    """Hide random tokens, with one ratio inside the box of a phrase (mask input `box`) and another outside; both counts
    exact.

    The box's corners are truncated to whole tokens, and the box is then extended by `margin` tokens on each side,
    within the image. A box outside the image, as can happen after a crop, contains no token. The number of hidden
    tokens depends on the box size, so counts differ between samples (see `Padded`). The grid's axes are (h, w). Source:
    OneRef (Xiao et al. 2024, referring-aware dynamic masking), 24 x 24 tokens; its code draws the outer ratio over the
    whole image and then overwrites the box, so the count outside varies.

    Attributes:
        inside: Ratio inside the box.
        outside: Ratio outside the box.
        margin: Tokens by which the box is extended on each side.
        rounding: Conversion of ratios to counts; see core/ratio.py.
    """

    inside: Ratio = 0.75
    outside: Ratio = 0.35
    margin: NaturalInt = 1
    rounding: Rounding = "floor_visible"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"box"})

    def hide(self, grid: TokenGrid, draw: Draw) -> Bools:
        h, w = grid.need("h", "w", by="Box")
        box = draw.cues.need("box", by="Box")
        inner = np.zeros((h, w), dtype=np.bool_)
        rows, columns = self._find_extent(box, h, w)
        inner[rows, columns] = True
        hidden = np.empty(grid.size, dtype=np.bool_)
        for part, ratio in ((inner, self.inside), (~inner, self.outside)):
            tokens = np.flatnonzero(part)
            visible = as_schedule(ratio).visible(len(tokens), draw, self.rounding)
            hidden[tokens] = draw_random_tokens(len(tokens), visible, draw.rng)
        return hidden

    def _find_extent(self, box: npt.NDArray[np.floating], h: int, w: int) -> tuple[slice, slice]:
        """Return the rows and columns of the grid that the box covers."""
        x0, y0, x1, y1 = (float(v) for v in box) if box.shape == (4,) else (np.nan,) * 4
        if not (x0 <= x1 and y0 <= y1 and np.isfinite([x0, y0, x1, y1]).all()):
            raise ValueError(
                f"a box must have x0 <= x1 and y0 <= y1, as fractions of the image (x0, y0, x1, y1), got {box}"
            )
        if x1 <= 0 or y1 <= 0 or x0 >= 1 or y0 >= 1:
            return slice(0), slice(0)
        return self._grown(y0, y1, h), self._grown(x0, x1, w)

    def _grown(self, low: float, high: float, n: int) -> slice:
        return slice(max(int(max(low, 0) * n) - self.margin, 0), min(int(high * n) + self.margin, n))


SCHEMES = (
    Scheme(
        name="beit",
        paper="BEiT",
        section="sec. 2.3",
        mask=Block(ratio=UniformCount(low=75, high=75)),
        grid=PICTURE,
        visible=121,
        title="Blocks",
        note="Rectangles of random size, aspect ratio and position until exactly 75 patches are hidden.",
    ),
    Scheme(
        name="oneref",
        paper="OneRef",
        section="referring-aware masking of images",
        mask=Padded(mask=Box(inside=0.75, outside=0.35)),
        grid=square(24),
        title="Inside and outside a box",
        note="Hides three quarters of the box that a phrase refers to, and 35 % of the rest.",
    ),
)
