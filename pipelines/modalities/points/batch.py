"""A batch of point clouds."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...masks.core.batch import MaskBatch
from ...stream.batch import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class PointsBatch(Batch):
    """A batch of point clouds.

    points: float32 (B, N, 3 + features), x, y, z first, as augmented. noise: float32 (B, N, 3), standard normal, and
    time: int64 (B,), the time that it belongs to (see diffusion.py), both None where the loader adds none. mask:
    MaskBatch over the tokens of points/tokens.py, or None.
    """

    points: Tensor
    noise: Tensor | None
    time: Tensor | None
    mask: MaskBatch | None
