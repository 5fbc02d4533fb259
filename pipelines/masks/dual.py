"""Dual: one mask for the encoder and another for what the decoder reconstructs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..batch import Flow, MaskBatch
from .base import Mask, mask_batch
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

    @property
    def needs_flow(self) -> bool:
        return self.encoder.needs_flow or self.decoder.needs_flow

    def hide(
        self, grid: TokenGrid, rng: np.random.Generator, *, flow: npt.NDArray[np.float32] | None, progress: float
    ) -> npt.NDArray[np.bool_]:
        return self.encoder.hide(grid, rng, flow=flow, progress=progress)

    def draw(
        self,
        grid: TokenGrid,
        rngs: Sequence[np.random.Generator],
        *,
        flow: Flow | None = None,
        progress: float = 0.0,
    ) -> MaskBatch:
        hidden = self.encoder.draw(grid, rngs, flow=flow, progress=progress).masked
        left_out = self.decoder.draw(grid, rngs, flow=flow, progress=progress).masked
        return mask_batch(hidden.numpy(), target=~left_out.numpy())
