"""A batch of images."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD
from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.kept import empty


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageBatch(Batch):
    """A batch of images.

    image: uint8 (B, H, W, 3), RGB. mask: MaskBatch over the (H/p, W/p) token grid in (h w) order, or None if the loader
    has no mask. The rest is as in `Batch`.
    """

    image: Tensor
    mask: MaskBatch | None

    def pixel_values(
        self,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """The images as float (B, 3, H, W), scaled to [0, 1] and normalised by `mean` and `std` (ImageNet's)."""
        device, pixels = self.image.device, self.image.permute(0, 3, 1, 2)
        m, s = (torch.tensor(of, dtype=dtype, device=device).view(-1, 1, 1) for of in (mean, std))
        if device.type == "cpu" and dtype == torch.float32:
            values = torch.from_numpy(empty(tuple(pixels.shape), np.float32)).copy_(pixels)
        else:
            values = pixels.to(dtype, memory_format=torch.contiguous_format)
        return values.div_(255.0).sub_(m).div_(s)
