"""Dual: one mask for the encoder and another for what the decoder reconstructs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core.base import Maps, Mask
from maskstream.pipelines.masks.core.draw import Draw
from maskstream.pipelines.masks.core.grid import TokenGrid
from maskstream.pipelines.masks.core.scheme import CLIP, Scheme

from .running_cell import RunningCell
from .tube import Tube


@dataclass(frozen=True, kw_only=True, slots=True)
class Dual(Mask):
    """The encoder does not see what `encoder` masks; the decoder reconstructs what `decoder` leaves unmasked.

    A target that the encoder saw has weight 0. With the defaults, on 8 x 14 x 14 tokens, the encoder sees 160 tokens
    and the decoder reconstructs 784 of 1568. Source: VideoMAE V2 (Wang et al. 2023), dual masking.
    """

    encoder: Mask = field(default_factory=Tube)
    decoder: Mask = field(default_factory=RunningCell)

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        return self.encoder.hide(grid, draw)

    def maps(self, grid: TokenGrid, draw: Draw) -> Maps:
        return Maps(hidden=self.encoder.hide(grid, draw), target=~self.decoder.hide(grid, draw))


SCHEMES = (
    Scheme(
        name="videomae2",
        paper="VideoMAE V2",
        section="sec. 3.2",
        mask=Dual(encoder=Tube(ratio=0.9), decoder=RunningCell(ratio=0.5)),
        grid=CLIP,
        visible=160,
        title="Dual",
        note=(
            "A tube for the encoder. The decoder skips running cells, which turn by one place from step to step: 784 "
            "tokens are reconstructed, and those that the encoder saw have weight 0."
        ),
    ),
)
