"""Tube: one random map of the plane, the same in every slice of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .base import Mask
from .draw import Draw
from .grid import TokenGrid
from .random import random_tokens
from .ratio import Ratio, Rounding, as_law, check_rounding


@dataclass(frozen=True, kw_only=True, slots=True)
class Tube(Mask):
    """A random map of the h x w plane repeated over t, so that a hidden place stays hidden for the whole clip.

    At ratio 0.9 on 8 x 14 x 14 tokens 20 of each slice's 196 stay visible, 160 in all. The grid's axes are (t, h, w).
    Source: VideoMAE (Tong et al. 2022).
    """

    ratio: Ratio = 0.9
    rounding: Rounding = "floor_masked"

    def __post_init__(self) -> None:
        as_law(self.ratio)
        check_rounding(self.rounding)

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        t, h, w = grid.need("t", "h", "w", by="Tube")
        visible = as_law(self.ratio).visible(draw, h * w, self.rounding)
        return np.tile(random_tokens(h * w, visible, draw.rng), t)
