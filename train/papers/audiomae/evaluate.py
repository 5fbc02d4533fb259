"""Evaluates the reconstruction of masked spectrograms."""

from __future__ import annotations

from pathlib import Path

from ....pipelines.modalities.audio.batch import AudioBatch
from ....pipelines.modalities.audio.data import AudioData
from ...evaluate.held_out import HeldOut, batches
from ...evaluate.patches import PatchLosses, patch_losses
from ...nn.masked_autoencoder import MaskedAutoencoder

MEASURED = 512
"""The largest number of samples that are measured."""


def held_out(config: AudioData, model: MaskedAutoencoder[AudioBatch], data: str | Path) -> HeldOut:
    """The loss on the split, compared with those of two baselines."""
    found = losses(config, model, data)
    return HeldOut(
        facts={
            "clip": f"{config.clip.seconds:g} s at {config.clip.sample_rate} Hz, {config.features.n_bins} bins",
            **found.facts(f"loss on {found.samples} of these sounds", "token"),
            "mask": repr(config.mask),
        },
        loss="The mean squared error over the target tokens' normalised values",
        baseline="predicting every token's mean",
        score=found.score("token"),
    )


def losses(config: AudioData, model: MaskedAutoencoder[AudioBatch], data: str | Path) -> PatchLosses:
    """The losses over up to 512 samples."""
    return patch_losses(model, batches(config, data, size=32, samples=MEASURED))
