"""Running cell: cells of 2 x 2 tokens tile the plane and turn by one place from slice to slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core.base import Mask
from maskstream.pipelines.masks.core.draw import Draw
from maskstream.pipelines.masks.core.grid import TokenGrid


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningCell(Mask):
    """Cells of 2 x 2 tokens tile the plane. 4 * ratio tokens of a cell are masked; they advance one place per slice.

    Every slice has exactly ratio * h * w masked tokens, and any 4 consecutive slices mask every place exactly 4 * ratio
    times. The first place is drawn for each view. `ratio` is 0.25, 0.5 or 0.75; the grid's axes are (t, h, w) with
    even h and w. Source: VideoMAE V2 (Wang et al. 2023), where it chooses what the decoder leaves out (see `Dual`).
    """

    ratio: float = 0.5

    def __post_init__(self) -> None:
        if self.ratio not in (0.25, 0.5, 0.75):
            raise ValueError(f"a cell of 4 tokens is masked at a ratio of 0.25, 0.5 or 0.75, got {self.ratio}")

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        t, h, w = grid.need("t", "h", "w", by="RunningCell")
        if h % 2 or w % 2:
            raise ValueError(f"RunningCell tiles the plane with 2 x 2 cells: h and w are even, got h={h}, w={w}")
        queue = np.arange(4) < 4 * self.ratio
        turn = int(draw.rng.integers(4)) + 1 + np.arange(t)
        cells = queue[(turn[:, None] + np.arange(4)) % 4].reshape(t, 2, 2)
        return np.tile(cells, (1, h // 2, w // 2)).reshape(-1)
