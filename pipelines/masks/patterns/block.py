"""Block: random rectangles of a picture, until enough tokens are hidden."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import exp, log, sqrt

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core.base import Mask
from maskstream.pipelines.masks.core.draw import Draw
from maskstream.pipelines.masks.core.grid import TokenGrid
from maskstream.pipelines.masks.core.ratio import Ratio, Rounding, as_law, check_rounding
from maskstream.pipelines.masks.core.scheme import PICTURE, Scheme
from maskstream.pipelines.masks.laws.random import UniformCount

from .random import adjusted

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
        numbers = uniform_numbers(rng)
        maps = [unpacked(self._rectangles(h, w, h * w - v, numbers), h * w) for v in visible]
        if self.exact:
            maps = [adjusted(m, v, rng) for m, v in zip(maps, visible, strict=True)]
        return np.concatenate(maps)

    def _rectangles(self, height: int, width: int, hidden: int, numbers: Iterator[float]) -> int:
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


def uniform_numbers(rng: np.random.Generator) -> Iterator[float]:
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
)
