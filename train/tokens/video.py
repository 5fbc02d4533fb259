"""Video as tokens: uint8 clips to cubes, the encoder's normalised inputs, and the decoder's normalised targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD
from ...shards.config import Config


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoTokensConfig(Config):
    """The clip (frames, height and width in pixels) and the cube of one token (tubelet in frames, patch in pixels)."""

    frames: int = 16
    size: int = 224
    tubelet: int = 2
    patch: int = 16

    def __post_init__(self) -> None:
        if min(self.frames, self.size, self.tubelet, self.patch) < 1:
            raise ValueError(f"frames, size, tubelet and patch must be positive, got {self}")
        if self.frames % self.tubelet or self.size % self.patch:
            raise ValueError(
                f"a clip of {self.frames} frames at {self.size} px does not divide into cubes of {self.tubelet} frames "
                f"and {self.patch} px; choose frames as a multiple of tubelet and size as a multiple of patch"
            )


class VideoTokens(nn.Module):
    """Cuts clips into (t h w)-ordered cubes of `tubelet * patch * patch` pixels, in (c t h w) order within a cube.

    The cubes stay uint8 until they were gathered, so only what the encoder sees or the decoder predicts is converted.
    Channels come first in them because a channel's moments are then sums over contiguous values.
    """

    kind = "video"
    mean: Tensor
    std: Tensor

    def __init__(self, config: VideoTokensConfig) -> None:
        super().__init__()
        self.config = config
        side = config.size // config.patch
        self.grid = (config.frames // config.tubelet, side, side)
        self.n_tokens = self.grid[0] * side * side
        self.n_pixels = config.tubelet * config.patch**2
        self.n_inputs = self.n_targets = 3 * self.n_pixels
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            per_value = torch.tensor(values).mul(255.0).repeat_interleave(self.n_pixels)
            self.register_buffer(name, per_value, persistent=False)

    def split(self, video: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to its cubes, uint8 (B, N, n_inputs)."""
        t, h, w = self.grid
        c = self.config
        if video.shape[1:] != (c.frames, c.size, c.size, 3):
            raise ValueError(
                f"video has the shape {tuple(video.shape)}, the model takes (B, {c.frames}, {c.size}, {c.size}, 3); "
                "use one clip setting for the loader and the model"
            )
        cubes = video.reshape(-1, t, c.tubelet, h, c.patch, w, c.patch, 3).permute(0, 1, 3, 5, 7, 2, 4, 6)
        return cubes.reshape(-1, self.n_tokens, self.n_inputs)

    def inputs(self, cubes: Tensor) -> Tensor:
        """uint8 cubes (B, V, n_inputs) to float32, normalised by ImageNet's mean and standard deviation."""
        return (cubes.float() - self.mean) / self.std

    def targets(self, cubes: Tensor) -> Tensor:
        """uint8 cubes (B, M, n_inputs) to float32 targets (B, M, n_targets): mean 0, variance 1 per cube and channel.

        VideoMAE's form: pixels in [0, 1], unbiased variance over the cube's pixels, division by sqrt(var) + 1e-6.
        """
        centred, _, deviation = self._moments(cubes)
        return centred.mul_(deviation.reciprocal()).flatten(2)

    def paint(self, video: Tensor, index: Tensor, predicted: Tensor) -> Tensor:
        """The clips with the cubes `index` (B, M) replaced by predictions (B, M, n_targets); uint8 (B, T, H, W, 3).

        A prediction is of a normalised cube, so it is shown with the mean and deviation of the true one.
        """
        t, h, w = self.grid
        c = self.config
        cubes = self.split(video)
        row = torch.arange(len(cubes), device=cubes.device)[:, None]
        _, mean, deviation = self._moments(cubes[row, index])
        pixels = predicted.float().reshape(*index.shape, 3, self.n_pixels) * deviation + mean
        cubes[row, index] = pixels.round_().clamp_(0, 255).to(torch.uint8).flatten(2)
        painted = cubes.reshape(-1, t, h, w, 3, c.tubelet, c.patch, c.patch).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return painted.reshape(video.shape)

    def _moments(self, cubes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The cubes' pixels less their mean, float32 (B, M, 3, n_pixels) in [-255, 255], the mean, and the deviation.

        The latter two are (B, M, 3, 1). torch.var_mean would give the same, an order of magnitude slower on a CPU.
        """
        pixels = cubes.float().reshape(*cubes.shape[:2], 3, self.n_pixels)
        mean = pixels.mean(dim=3, keepdim=True)
        centred = pixels.sub_(mean)
        norm = torch.linalg.vector_norm(centred, dim=3, keepdim=True)
        return centred, mean, norm / (self.n_pixels - 1) ** 0.5 + 255e-6
