"""Evaluates the reconstruction of masked spectrograms."""

from __future__ import annotations

from pathlib import Path

import torch

from ...pipelines.modalities.audio.batch import AudioBatch
from ...pipelines.modalities.audio.data import AudioData
from ..models.masked_autoencoder import MaskedAutoencoder
from ..tokens.spectrogram import SpectrogramTokens
from .held_out import HeldOut, batches, generalisation_warning

MEASURED = 512
"""The largest number of samples that are measured."""


def held_out(config: AudioData, model: MaskedAutoencoder[AudioBatch], data: str | Path) -> HeldOut:
    """The loss on the split, compared with that of predicting each token's mean."""
    loss, trivial, measured = losses(config, model, data)
    return HeldOut(
        facts={
            "clip": f"{config.clip.seconds:g} s at {config.clip.sample_rate} Hz, {config.features.n_bins} bins",
            f"loss on {measured} of these sounds": f"{loss:.3f}{generalisation_warning(loss, trivial)}",
            "loss of predicting each token's mean": f"{trivial:.3f}",
            "mask": repr(config.mask),
        },
        loss="The mean squared error over the target tokens' normalised values",
        baseline="predicting every token's mean",
    )


def losses(config: AudioData, model: MaskedAutoencoder[AudioBatch], data: str | Path) -> tuple[float, float, int]:
    """The mean loss over up to 512 samples, that of predicting each token's mean, and the number of samples."""
    if not isinstance(model.tokens, SpectrogramTokens):
        raise ValueError(f"the model must be one of spectrograms, got one of {type(model.tokens).__name__}")
    sums = torch.zeros(3, dtype=torch.float64)
    samples = 0
    with torch.inference_mode():
        for batch in batches(config, data, size=32, samples=MEASURED):
            if batch.spectrogram is None or batch.mask is None:
                raise ValueError("the batch has no masks or no spectrogram; give the loader mask=")
            patches, mask = model.tokens.split(batch.spectrogram), batch.mask
            row = torch.arange(len(patches))[:, None]
            square = model.tokens.targets(patches[row, mask.target]).square().mean(dim=2)
            part = model(batch).parts["reconstruction"]
            sums += torch.stack((part.total, (square * mask.weight).sum(), part.weight)).double()
            samples += len(batch) if batch.weight is None else int(batch.weight.sum())
    return float(sums[0] / sums[2]), float(sums[1] / sums[2]), samples
