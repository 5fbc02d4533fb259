"""Spectrograms as tokens: patches of frames x bins, and targets that are normalised over all values of a patch."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.masks.core.batch import MaskBatch
from maskstream.pipelines.modalities.audio.batch import AudioBatch

from .objectives import joint_moments
from .positions import axis_sinusoids
from .select import gather_tokens, put_tokens
from .video_tokens import NO_MASK


class SpectrogramTokens(nn.Module):
    """Cuts normalised spectrograms into (time freq)-ordered patches, as Audio-MAE does (Huang et al., 2022, 3.1)."""

    def __init__(self, grid: TokenGrid) -> None:
        super().__init__()
        grid.need("time", "freq", by="a model of spectrograms")
        self.grid, self.patch = grid.shape, grid.patch
        self.extent = tuple(n * step for n, step in zip(grid.shape, grid.patch, strict=True))
        self.n_tokens = grid.size
        self.n_inputs = self.n_targets = grid.patch[0] * grid.patch[1]

    def of(self, batch: AudioBatch) -> tuple[Tensor, MaskBatch]:
        """The spectrograms of a batch and their masks; ValueError where it has none."""
        if batch.spectrogram is None:
            raise ValueError("the batch has no spectrogram; take it from an audio_loader")
        if batch.mask is None:
            raise ValueError(NO_MASK)
        return batch.spectrogram, batch.mask

    def completed(self, batch: AudioBatch, predicted: Tensor) -> AudioBatch:
        """The batch with its target tokens replaced by the predictions (B, M, n_targets)."""
        spectrogram, mask = self.of(batch)
        return replace(batch, spectrogram=self.paint(spectrogram, mask.target, predicted))

    def split(self, spectrogram: Tensor) -> Tensor:
        """Splits spectrograms float32 (B, T, F) into patches float32 (B, N, n_inputs)."""
        (t, f), (pt, pf) = self.grid, self.patch
        if spectrogram.shape[1:] != self.extent:
            raise ValueError(
                f"spectrograms have the shape {tuple(spectrogram.shape)}, the model takes (B, {self.extent[0]}, "
                f"{self.extent[1]}); use the same clip and features for the loader and the model"
            )
        patches = spectrogram.reshape(-1, t, pt, f, pf).transpose(2, 3)
        return patches.reshape(-1, self.n_tokens, self.n_inputs)

    def inputs(self, patches: Tensor) -> Tensor:
        """Returns the patches unchanged: the loader has normalised the spectrogram."""
        return patches

    def targets(self, patches: Tensor) -> Tensor:
        """Patches (B, M, n_inputs) normalised to mean 0 and variance 1 over their values (unbiased, 1e-6 added)."""
        mean, deviation = joint_moments(patches)
        return (patches - mean) / deviation

    def paint(self, spectrogram: Tensor, index: Tensor, predicted: Tensor) -> Tensor:
        """The spectrograms (B, T, F) with the patches `index` (B, M) replaced by predictions (B, M, n_targets).

        A prediction is of a normalised patch, so it is scaled by the mean and deviation of the true patch.
        """
        (t, f), (pt, pf) = self.grid, self.patch
        patches = self.split(spectrogram)
        mean, deviation = joint_moments(gather_tokens(patches, index))
        patches = put_tokens(patches, index, predicted.float() * deviation + mean)
        return patches.reshape(-1, t, f, pt, pf).transpose(2, 3).reshape(spectrogram.shape)

    def positions(self, width: int) -> Tensor:
        """Fixed position embeddings float32 (N, width): the sinusoid of the time, then that of the frequency.

        ValueError if the width is not a multiple of 4.
        """
        return axis_sinusoids(self.grid, width)
