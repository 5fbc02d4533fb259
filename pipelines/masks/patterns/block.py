"""Rectangles of a picture: random ones until enough tokens are hidden, or the box that a phrase refers to."""

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
    as_law,
    check_rounding,
    square,
)
from maskstream.pipelines.masks.laws.random import UniformCount

from .padded import Padded
from .random import adjust_map, draw_random_tokens

ATTEMPTS = 10
"""Rectangles in a row that may be rejected before single tokens make up the count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block(Mask):
    """Rectangles of random place, area and aspect in the plane h x w.

    A rectangle's area is uniform from `least` tokens to what is left to hide, its aspect h / w log-uniform from
    `aspect` to 1 / `aspect`. It is smaller than the plane in h and in w. A rectangle that would hide too many tokens or
    no new one is rejected. After 10 rejections in a row random single tokens make up the count; with exact=False, as
    published, they stay visible, and samples of a batch have different counts (see `Padded`).

    The grid's axes are (h, w), or (t, h, w) with other rectangles in each time step, and with another ratio in each for
    a law of scope "frame". At ratio 0.4 on 14 x 14 tokens 78 are hidden; BEiT hides 75, which is
    ratio=UniformCount(low=75, high=75). Source: BEiT (Bao et al. 2021, blockwise masking).
    """

    ratio: Ratio = 0.4
    rounding: Rounding = "floor_masked"
    least: int = 16
    aspect: float = 0.3
    exact: bool = True

    def __post_init__(self) -> None:
        as_law(self.ratio)
        check_rounding(self.rounding)
        if self.least < 1:
            raise ValueError(f"least is a rectangle's smallest area in tokens, 1 or more, got {self.least}")
        if not 0 < self.aspect <= 1:
            raise ValueError(f"aspect is the smallest h / w of a rectangle, in (0, 1], got {self.aspect}")

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        if grid.axes != ("h", "w"):
            grid.need("t", "h", "w", by="Block")
        h, w = grid.shape[-2:]
        law, rng = as_law(self.ratio), draw.rng
        visible = law.visible_per_frame(grid.size // (h * w), h * w, draw, self.rounding)
        numbers = draw_uniform_numbers(rng)
        maps = [unpacked(self._draw_rectangles(h, w, h * w - v, numbers), h * w) for v in visible]
        if self.exact:
            maps = [adjust_map(m, v, rng) for m, v in zip(maps, visible, strict=True)]
        return np.concatenate(maps)

    def _draw_rectangles(self, height: int, width: int, hidden: int, numbers: Iterator[float]) -> int:
        """Up to `hidden` tokens in rectangles, as the bits of an integer, the plane's first token lowest."""
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
    """Uniform numbers in [0, 1), drawn 64 at a time."""
    while True:
        yield from rng.random(64).tolist()


@lru_cache(maxsize=4096)
def rectangle(h: int, w: int, width: int) -> int:
    """h x w tokens at the first corner of a plane `width` tokens wide, as the bits of an integer."""
    row: int = (1 << w) - 1
    return sum(row << (i * width) for i in range(h))


def unpacked(bits: int, n: int) -> npt.NDArray[np.bool_]:
    """The lowest `n` bits of an integer, lowest first: bool (n,)."""
    data = np.frombuffer(bits.to_bytes((n + 7) // 8, "little"), dtype=np.uint8)
    return np.unpackbits(data, count=n, bitorder="little").view(np.bool_)


@dataclass(frozen=True, kw_only=True, slots=True)
class Box(Mask):
    """Random tokens, with one ratio inside the cue `box` and another outside, both counted exactly.

    The box's corners are truncated to whole tokens, then the box grows by `margin` tokens to each side, within the
    picture. A box outside the picture, as after a crop, holds no token. The number of hidden tokens depends on the
    box's size, so samples of a batch have different counts (see `Padded`). The grid's axes are (h, w). Source: OneRef
    (Xiao et al. 2024, referring-aware dynamic masking), 24 x 24 tokens; its code draws the outer ratio over the whole
    picture and then overwrites the box, so that the count outside varies.
    """

    inside: Ratio = 0.75
    outside: Ratio = 0.35
    margin: int = 1
    rounding: Rounding = "floor_visible"

    def __post_init__(self) -> None:
        as_law(self.inside)
        as_law(self.outside)
        check_rounding(self.rounding)
        if self.margin < 0:
            raise ValueError(f"margin is a number of tokens, 0 or more, got {self.margin}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"box"})

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        h, w = grid.need("h", "w", by="Box")
        box = draw.cues.need("box", by="Box")
        inner = np.zeros((h, w), dtype=np.bool_)
        rows, columns = self._find_extent(box, h, w)
        inner[rows, columns] = True
        hidden = np.empty(grid.size, dtype=np.bool_)
        for part, ratio in ((inner, self.inside), (~inner, self.outside)):
            tokens = np.flatnonzero(part)
            visible = as_law(ratio).visible(len(tokens), draw, self.rounding)
            hidden[tokens] = draw_random_tokens(len(tokens), visible, draw.rng)
        return hidden

    def _find_extent(self, box: npt.NDArray[np.floating], h: int, w: int) -> tuple[slice, slice]:
        """The rows and the columns of the grid that the box covers."""
        x0, y0, x1, y1 = (float(v) for v in box) if box.shape == (4,) else (np.nan,) * 4
        if not (x0 <= x1 and y0 <= y1 and np.isfinite([x0, y0, x1, y1]).all()):
            raise ValueError(f"a box is x0, y0, x1, y1 with x0 <= x1 and y0 <= y1, as shares of the picture, got {box}")
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
        note="Rectangles of random size, aspect and place until exactly 75 patches are hidden.",
    ),
    Scheme(
        name="oneref",
        paper="OneRef",
        section="referring-aware masking of images",
        mask=Padded(mask=Box(inside=0.75, outside=0.35)),
        grid=square(24),
        title="Inside and outside a box",
        note="Three quarters of the box that a phrase refers to are hidden, a third of the rest.",
    ),
)
