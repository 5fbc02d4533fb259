"""Masks that follow the flow of a batch on the flow's own device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from .base import Mask, unequal
from .batch import MaskBatch
from .draw import Draw
from .grid import TokenGrid


class DeviceMask(Mask, ABC):
    """A mask that can be made where the flow of a batch is; the result is that of `draw`, bit by bit.

    The random numbers are drawn on the CPU from the same generators, and nothing is copied back to it.
    """

    __slots__ = ()

    @abstractmethod
    def draw_on_device(self, grid: TokenGrid, draws: Sequence[Draw], flow: Tensor) -> MaskBatch:
        """The masks of B views of which `flow` is the flow: float32 (B, T-1, h, w, 2), as the cue of each view.

        The cues of the draws are not read. ValueError as for `Mask.draw`.
        """


def placed(masked: Tensor, visible: Sequence[int], grid: TokenGrid) -> MaskBatch:
    """The MaskBatch of `masked`, bool (B, N), on its device, without a wait for it; all masked tokens are targets.

    visible: how many tokens of each row are not masked. ValueError where they differ, as `mask_batch` raises it.
    """
    if len(set(visible)) > 1:
        raise unequal("visible tokens", min(visible), max(visible))
    order = torch.sort(masked.to(torch.uint8), dim=1, stable=True).indices
    shown = order[:, : visible[0] if visible else 0].contiguous()
    target = order[:, shown.shape[1] :].contiguous()
    weight = torch.ones(target.shape, dtype=torch.float32, device=masked.device)
    return MaskBatch(grid=grid, masked=masked, visible=shown, target=target, weight=weight)
