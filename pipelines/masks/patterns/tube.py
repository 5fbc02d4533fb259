"""Tube: one random map of the plane, the same in every slice of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core.base import Mask
from maskstream.pipelines.masks.core.draw import Draw, TokenGrid
from maskstream.pipelines.masks.core.ratio import Ratio, Rounding, as_law, check_rounding
from maskstream.pipelines.masks.core.scheme import CLIP, Scheme
from maskstream.pipelines.masks.core.slices import repeated

from .random import random_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Tube(Mask):
    """One random map of a slice, repeated in all slices across `axis`, such as all time steps.

    At ratio 0.9 on 8 x 14 x 14 tokens 20 of each slice's 196 stay visible, 160 in all. The grid's axes are any with
    `axis` among them. Across the axis "modality" of a stack of pictures (RGB and depth) it hides the same places in
    each picture. Source: VideoMAE (Tong et al. 2022, sec. 3.3).
    """

    ratio: Ratio = 0.9
    rounding: Rounding = "floor_masked"
    axis: str = "t"

    def __post_init__(self) -> None:
        as_law(self.ratio)
        check_rounding(self.rounding)

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        plane = grid.across(self.axis, by="Tube")
        visible = as_law(self.ratio).visible(plane, draw, self.rounding)
        return repeated(random_tokens(plane, visible, draw.rng), grid, self.axis)


SCHEMES = (
    Scheme(
        name="tube",
        paper="VideoMAE",
        section="sec. 3.3",
        mask=Tube(ratio=0.9),
        grid=CLIP,
        visible=160,
        title="Tube",
        note=(
            "One map of the picture for the whole clip, so that nothing can be copied from another frame: 176 of each "
            "time step's 196 tokens are hidden."
        ),
    ),
    Scheme(
        name="rgb-depth",
        paper="RGB and depth",
        mask=Tube(ratio=0.75, axis="modality"),
        grid=TokenGrid(axes=("modality", "h", "w"), shape=(2, 14, 14), patch=(1, 16, 16)),
        visible=98,
        title="One mask for a stack of pictures",
        note="The same places are hidden in all pictures of a stack, such as RGB and depth.",
    ),
)
