"""Random: tokens anywhere, without structure in space or time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.base import Mask
from ..core.draw import Draw
from ..core.grid import TokenGrid
from ..core.ratio import Ratio, Rounding, as_law, check_rounding


@dataclass(frozen=True, kw_only=True, slots=True)
class Random(Mask):
    """Uniformly random tokens of any grid, exactly as many as the ratio says.

    At ratio 0.9 on 8 x 14 x 14 tokens 156 of 1568 stay visible. Source: MAE-ST (Feichtenhofer et al. 2022), where it is
    called spacetime-agnostic; on the grid of an image it is MAE's.
    """

    ratio: Ratio = 0.9
    rounding: Rounding = "floor_visible"

    def __post_init__(self) -> None:
        as_law(self.ratio)
        check_rounding(self.rounding)

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        visible = as_law(self.ratio).visible(grid.size, draw, self.rounding)
        return random_tokens(grid.size, visible, draw.rng)


def random_tokens(n: int, visible: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """All of `n` tokens hidden but `visible` of them, chosen uniformly: bool (n,)."""
    hidden = np.ones(n, dtype=np.bool_)
    hidden[rng.permutation(n)[:visible]] = False
    return hidden


def adjusted(hidden: npt.NDArray[np.bool_], visible: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """The map bool (n,) with random tokens shown or hidden, so that `visible` are visible."""
    missing = len(hidden) - int(np.count_nonzero(hidden)) - visible
    if missing:
        changed = np.flatnonzero(~hidden if missing > 0 else hidden)
        hidden = hidden.copy()
        hidden[rng.permutation(changed)[: abs(missing)]] = missing > 0
    return hidden
