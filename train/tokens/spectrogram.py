"""Spectrograms as tokens: patches of frames x bins, and targets that are normalised over all values of a patch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...shards.config import Config
from ..core.positions import axis_sinusoids

EPS = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectrogramTokensConfig(Config):
    """The spectrogram (frames, bins) and the extent of a token in both."""

    frames: int = 1024
    bins: int = 128
    patch_frames: int = 16
    patch_bins: int = 16

    def __post_init__(self) -> None:
        if min(self.frames, self.bins, self.patch_frames, self.patch_bins) < 1:
            raise ValueError(f"frames, bins and patches must be positive, got {self}")
        if self.frames % self.patch_frames or self.bins % self.patch_bins:
            raise ValueError(
                f"a spectrogram of {self.frames} x {self.bins} does not divide into patches of {self.patch_frames} x "
                f"{self.patch_bins}"
            )


class SpectrogramTokens(nn.Module):
    """Cuts normalised spectrograms into (time freq)-ordered patches, as Audio-MAE does (Huang et al., 2022, 3.1)."""

    kind = "audio"

    def __init__(self, config: SpectrogramTokensConfig) -> None:
        super().__init__()
        self.config = config
        self.grid = (config.frames // config.patch_frames, config.bins // config.patch_bins)
        self.n_tokens = self.grid[0] * self.grid[1]
        self.n_inputs = self.n_targets = config.patch_frames * config.patch_bins

    def split(self, spectrogram: Tensor) -> Tensor:
        """float32 (B, T, F) to its patches, float32 (B, N, n_inputs)."""
        c, (t, f) = self.config, self.grid
        if spectrogram.shape[1:] != (c.frames, c.bins):
            raise ValueError(
                f"spectrograms have the shape {tuple(spectrogram.shape)}, the model takes (B, {c.frames}, {c.bins}); "
                "use one setting for the loader and the model"
            )
        patches = spectrogram.reshape(-1, t, c.patch_frames, f, c.patch_bins).transpose(2, 3)
        return patches.reshape(-1, self.n_tokens, self.n_inputs)

    def inputs(self, patches: Tensor) -> Tensor:
        """The patches as they are: the loader has normalised the spectrogram."""
        return patches

    def targets(self, patches: Tensor) -> Tensor:
        """Patches (B, M, n_inputs) with mean 0 and variance 1 over all their values (unbiased, 1e-6 added)."""
        mean, deviation = _moments(patches)
        return (patches - mean) / deviation

    def paint(self, spectrogram: Tensor, index: Tensor, predicted: Tensor) -> Tensor:
        """The spectrograms (B, T, F) with the patches `index` (B, M) replaced by predictions (B, M, n_targets).

        A prediction is of a normalised patch, so it gets the mean and deviation of the true one.
        """
        c, (t, f) = self.config, self.grid
        patches = self.split(spectrogram)
        row = torch.arange(len(patches), device=patches.device)[:, None]
        mean, deviation = _moments(patches[row, index])
        patches[row, index] = predicted.float() * deviation + mean
        return patches.reshape(-1, t, f, c.patch_frames, c.patch_bins).transpose(2, 3).reshape(spectrogram.shape)

    def positions(self, width: int) -> Tensor:
        """Fixed positions float32 (N, width): sines and cosines of the time in the first half, of the frequency in the
        second. ValueError where width is not a multiple of 4.
        """
        return axis_sinusoids(self.grid, width)


def _moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch, (B, M, 1)."""
    mean = patches.mean(dim=2, keepdim=True)
    variance = (patches - mean).square().sum(dim=2, keepdim=True) / (patches.shape[2] - 1)
    return mean, (variance + EPS).sqrt()
