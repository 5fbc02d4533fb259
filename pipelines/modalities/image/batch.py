"""Batches of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD, normalised
from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.tensors import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageBatch(Batch):
    """A batch of images, uint8 (B, H, W, 3); see `Batch` for the fields that all modalities share.

    Attributes:
        image: uint8 (B, H, W, 3): RGB pixels.
        mask: Masks on the (H/p, W/p) token grid in (h w) order, or None if the loader has no mask.
    """

    image: Tensor
    mask: MaskBatch | None

    def pixel_values(
        self,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Convert the images to float (B, 3, H, W), scaled to [0, 1] and normalised by `mean` and
        `std` (ImageNet's).
        """
        return normalised(self.image, mean, std, dtype or torch.float32)
