"""A batch of point clouds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from ...masks.core.batch import MaskBatch
from ...stream.batch import Movable


@dataclass(frozen=True, kw_only=True, slots=True)
class PointsBatch(Movable):
    """A batch of point clouds.

    points: float32 (B, N, 3 + features), x, y, z first, as augmented. noise: float32 (B, N, 3), standard normal, and
    time: int64 (B,), the time that it belongs to (see diffusion.py), both None where the loader adds none. mask:
    MaskBatch over the tokens of points/tokens.py, or None. label, key, weight: as in VideoBatch.
    """

    points: Tensor
    noise: Tensor | None
    time: Tensor | None
    mask: MaskBatch | None
    label: Tensor
    key: list[str]
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.key)

    def weighted(self, weight: Tensor) -> PointsBatch:
        """As VideoBatch.weighted."""
        weight = weight.repeat_interleave(len(self) // len(weight))
        mask = self.mask and replace(self.mask, weight=self.mask.weight * weight[:, None])
        return replace(self, weight=weight, mask=mask)
