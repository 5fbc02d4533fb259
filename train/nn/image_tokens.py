"""Pictures as tokens: uint8 pictures to patches, the encoder's normalised inputs, and the decoder's targets.

The rule is MAE's (He et al., 2022, 3): pixels are normalised by ImageNet's mean and deviation, and a target is such a
patch, as it is or with mean 0 and variance 1 over all its values, colours together.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.masks.core.batch import MaskBatch
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD

from .objectives import joint_moments
from .positions import axis_sinusoids
from .select import gather_tokens, put_tokens
from .video_tokens import NO_MASK, Targets

FirstAxis = Literal["rows", "columns"]
"""The axis whose sinusoids are the first half of a position embedding."""


class ImageTokens(nn.Module):
    """Cuts pictures into (h w)-ordered patches, in (h w c) order within a patch.

    The patches stay uint8 until they were gathered, so only what the encoder sees or the decoder predicts is converted.
    target: see Targets in video_tokens.py. first: see FirstAxis.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, grid: TokenGrid, target: Targets = "normalised", first: FirstAxis = "rows") -> None:
        super().__init__()
        self.target, self.first = target, first
        grid.need("h", "w", by="a model of pictures")
        self.grid, self.patch = grid.shape, grid.patch
        self.extent = tuple(n * step for n, step in zip(grid.shape, grid.patch, strict=True))
        self.n_tokens = grid.size
        n_pixels = grid.patch[0] * grid.patch[1]
        self.n_inputs = self.n_targets = 3 * n_pixels
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).mul(255.0).repeat(n_pixels), persistent=False)

    def of(self, batch: ImageBatch) -> tuple[Tensor, MaskBatch]:
        """The pictures of a batch and their masks; ValueError where it has none."""
        if batch.mask is None:
            raise ValueError(NO_MASK)
        return batch.image, batch.mask

    def completed(self, batch: ImageBatch, predicted: Tensor) -> ImageBatch:
        """The batch with the predictions (B, M, n_targets) of its targets in their place."""
        image, mask = self.of(batch)
        return replace(batch, image=self.paint(image, mask.target, predicted))

    def split(self, image: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) to its patches, uint8 (B, N, n_inputs)."""
        (h, w), (ph, pw) = self.grid, self.patch
        if image.shape[1:] != (*self.extent, 3):
            raise ValueError(
                f"pictures have the shape {tuple(image.shape)}, the model takes (B, {self.extent[0]}, "
                f"{self.extent[1]}, 3); use one size for the loader and the model"
            )
        return image.reshape(-1, h, ph, w, pw, 3).transpose(2, 3).reshape(-1, self.n_tokens, self.n_inputs)

    def inputs(self, patches: Tensor) -> Tensor:
        """uint8 patches (B, V, n_inputs) to float32, normalised by ImageNet's mean and standard deviation."""
        return (patches.float() - self.mean) / self.std

    def targets(self, patches: Tensor) -> Tensor:
        """uint8 patches (B, M, n_inputs) to float32 targets (B, M, n_targets).

        "pixels": the same as `inputs`. "normalised": mean 0 and variance 1 in each patch; the variance is unbiased, and
        1e-6 is added to it.
        """
        if self.target == "pixels":
            return self.inputs(patches)
        mean, deviation = joint_moments(self.inputs(patches))
        return (self.inputs(patches) - mean) / deviation

    def paint(self, image: Tensor, index: Tensor, predicted: Tensor) -> Tensor:
        """The pictures with the patches `index` (B, M) replaced by predictions (B, M, n_targets); uint8 (B, H, W, 3).

        A prediction of a normalised patch is shown with the mean and deviation of the true one. A prediction of pixels
        is painted as it is.
        """
        (h, w), (ph, pw) = self.grid, self.patch
        patches = self.split(image)
        inputs = predicted.float()
        if self.target == "normalised":
            mean, deviation = joint_moments(self.inputs(gather_tokens(patches, index)))
            inputs = inputs * deviation + mean
        pixels = inputs * self.std + self.mean
        patches = put_tokens(patches, index, pixels.round_().clamp_(0, 255))
        return patches.reshape(-1, h, w, ph, pw, 3).transpose(2, 3).reshape(image.shape)

    def positions(self, width: int) -> Tensor:
        """Fixed positions float32 (N, width): sines and cosines of the row in one half, of the column in the other.

        ValueError where width is not a multiple of 4.
        """
        places = axis_sinusoids(self.grid, width)
        return places if self.first == "rows" else places.roll(width // 2, dims=1)
