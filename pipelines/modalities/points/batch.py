"""Batches of point clouds."""

from dataclasses import dataclass

from torch import Tensor

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.stream.batch import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class PointsBatch(Batch):
    """A batch of point clouds, float32 (B, N, 3 + features).

    Attributes:
        points: float32 (B, N, 3 + features): augmented points, x, y, z first, without noise.
        noise: float32 (B, N, 3): standard normal noise; None if the loader draws none.
        time: int64 (B,): time of the noise schedule (augment/diffusion.py); None if the loader draws no noise.
        mask: Masks on the tokens of tokens.py, or None.
    """

    points: Tensor
    noise: Tensor | None
    time: Tensor | None
    mask: MaskBatch | None
