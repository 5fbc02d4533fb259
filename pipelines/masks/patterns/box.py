"""Box: one ratio inside a box, such as that of the object that a phrase refers to, and another outside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core.base import Mask
from maskstream.pipelines.masks.core.draw import Draw
from maskstream.pipelines.masks.core.grid import TokenGrid
from maskstream.pipelines.masks.core.ratio import Ratio, Rounding, as_law, check_rounding
from maskstream.pipelines.masks.core.scheme import Scheme, square

from .padded import Padded
from .random import random_tokens


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
        rows, columns = self._extent(box, h, w)
        inner[rows, columns] = True
        hidden = np.empty(grid.size, dtype=np.bool_)
        for part, ratio in ((inner, self.inside), (~inner, self.outside)):
            tokens = np.flatnonzero(part)
            visible = as_law(ratio).visible(len(tokens), draw, self.rounding)
            hidden[tokens] = random_tokens(len(tokens), visible, draw.rng)
        return hidden

    def _extent(self, box: npt.NDArray[np.floating], h: int, w: int) -> tuple[slice, slice]:
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
        name="oneref",
        paper="OneRef",
        section="referring-aware masking of images",
        mask=Padded(mask=Box(inside=0.75, outside=0.35)),
        grid=square(24),
        title="Inside and outside a box",
        note="Three quarters of the box that a phrase refers to are hidden, a third of the rest.",
    ),
)
