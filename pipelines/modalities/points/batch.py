"""A batch of point clouds."""

from dataclasses import dataclass

from torch import Tensor

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.stream.batch import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class PointsBatch(Batch):
    """A batch of point clouds.

    points: float32 (B, N, 3 + features), augmented, x, y, z first and without noise. noise: float32 (B, N, 3), standard
    normal. time: int64 (B,), the time of the noise schedule (augment/diffusion.py). Both are None if the loader draws
    no noise. mask: MaskBatch over the tokens of tokens.py, or None.
    """

    points: Tensor
    noise: Tensor | None
    time: Tensor | None
    mask: MaskBatch | None
