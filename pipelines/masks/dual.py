"""Dual: one mask for the encoder and another for what the decoder reconstructs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..batch import MaskBatch
from .base import Mask, as_draw, mask_batch
from .draw import Draw
from .grid import TokenGrid
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

    def draw(self, grid: TokenGrid, draws: Sequence[Draw | np.random.Generator]) -> MaskBatch:
        pairs = [(self.encoder.hide(grid, d), self.decoder.hide(grid, d)) for d in map(as_draw, draws)]
        both = np.array(pairs, dtype=np.bool_).reshape(len(draws), 2, grid.size)
        return mask_batch(both[:, 0].copy(), target=~both[:, 1])
