"""Voxel-aware: one ratio for tokens that hold points, another for empty tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core.base import Mask
from maskstream.pipelines.masks.core.draw import Draw, TokenGrid, sized
from maskstream.pipelines.masks.core.ratio import Ratio, as_law
from maskstream.pipelines.masks.core.scheme import Scheme

from .padded import Padded


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelAware(Mask):
    """Random tokens: those that hold points at the ratio `foreground`, empty ones at the ratio `background`.

    Of N_f occupied tokens ceil((1 - foreground) N_f) stay visible, at least 1; of N_b empty ones
    ceil((1 - background) N_b). These counts differ from cloud to cloud (see `Padded`).

    total: every cloud has one count: floor((1 - total) N) of all tokens stay visible. The foreground keeps its count
        and the background gets the rest; where the background has too few tokens, or the rest is negative, the
        foreground's count changes.

    The grid's axes are (x, y, z), the cue is `occupied` (of the cloud that the model is given). Source: FastDiT-3D (Mo
    et al. 2023), near 0.99 in all; 32768 tokens at resolution 128 in patches of 4.
    """

    foreground: Ratio = 0.95
    background: Ratio = 0.99
    total: Ratio | None = None

    def __post_init__(self) -> None:
        for ratio in (self.foreground, self.background, self.total):
            if ratio is not None:
                as_law(ratio)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"occupied"})

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        grid.need("x", "y", "z", by="VoxelAware")
        occupied = sized(draw.cues.need("occupied", by="VoxelAware"), grid.size, "occupied", "VoxelAware")
        inside, outside = np.flatnonzero(occupied), np.flatnonzero(~occupied)
        front = min(max(as_law(self.foreground).visible(len(inside), draw, "floor_masked"), 1), len(inside))
        if self.total is None:
            back = as_law(self.background).visible(len(outside), draw, "floor_masked")
        else:
            visible = as_law(self.total).visible(grid.size, draw, "floor_visible")
            back = min(max(visible - front, 0), len(outside))
            front = visible - back
        hidden = np.ones(grid.size, dtype=np.bool_)
        hidden[draw.rng.choice(inside, front, replace=False, shuffle=False)] = False
        hidden[draw.rng.choice(outside, back, replace=False, shuffle=False)] = False
        return hidden


SCHEMES = (
    Scheme(
        name="fastdit-3d",
        paper="FastDiT-3D",
        section="voxel-aware masking",
        mask=Padded(mask=VoxelAware(foreground=0.95, background=0.99)),
        grid=TokenGrid(axes=("x", "y", "z"), shape=(32, 32, 32), patch=(4, 4, 4)),
        title="Foreground and background",
        note=(
            "95 % of the tokens that hold points are hidden, 99 % of the empty ones. The two ratios are not in "
            "published code."
        ),
    ),
)
