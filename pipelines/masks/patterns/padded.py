"""Padded: a batch of samples with different counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.masks.core.base import Maps, Mask, batch_of
from maskstream.pipelines.masks.core.batch import MaskBatch
from maskstream.pipelines.masks.core.draw import Draw, TokenGrid


@dataclass(frozen=True, kw_only=True, slots=True)
class Padded(Mask):
    """The masks of `mask`, whose samples may have different counts. `MaskBatch.n_visible` and `n_target` hold them.

    `visible` and `target` are padded to the longest row, rounded up to a multiple of `bucket`, so that at most N /
    bucket shapes occur.
    """

    mask: Mask
    bucket: int = 1

    def __post_init__(self) -> None:
        if self.bucket < 1:
            raise ValueError(f"bucket is a number of tokens, 1 or more, got {self.bucket}")

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        return self.mask.hide(grid, draw)

    def maps(self, grid: TokenGrid, draw: Draw) -> Maps:
        return self.mask.maps(grid, draw)

    def batched(self, grid: TokenGrid, maps: Sequence[Maps]) -> MaskBatch:
        return batch_of(maps, grid, ragged=self.bucket)
