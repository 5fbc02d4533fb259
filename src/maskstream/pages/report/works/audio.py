"""A model's work on sounds: spectrograms that it completes, or noise that it takes away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ....pipelines.modalities.audio.batch import AudioBatch, NoisyBatch
from ....pipelines.modalities.audio.data import AudioData, NoisyData
from ....train.evaluate.evaluation import NORMALISED
from ....train.evaluate.held_out import batches
from ....train.nn.masked_autoencoder import MaskedAutoencoder
from ....train.papers.audiomae import evaluate as spectrograms
from ....train.papers.ca_dense_unet import evaluate as enhancement
from ....train.papers.ca_dense_unet.model import DenseUNet
from ...figures.figures import Figures
from ...figures.work import Work, compared

READING = (
    "Time runs to the right, frequency rises upwards, bright is loud. The encoder saw only the coloured tokens of the "
    "middle picture. In the last one the others are the model's predictions. "
)
BEFORE_AND_AFTER = (
    "Time runs to the right, frequency rises upwards, bright is loud; what the first microphone hears. Each sound was "
    "mixed with noise from another direction; the network gave every microphone a complex mask, and the mixture times "
    "the mask is what came out. SI-SDR is the ratio of clean signal to error in decibels, whatever the loudness."
)


def show_spectrograms(
    config: AudioData, model: MaskedAutoencoder[AudioBatch], data: str | Path, shown: int, figures: Figures[AudioBatch]
) -> Work:
    """Clips of sounds as they are, without gain and mixtures."""
    plain = replace(config, roll_gain=None, spec_augment=None, mixup=None, views=1)
    found = spectrograms.held_out(plain, model, data)
    batch = next(iter(batches(plain, data, size=shown, samples=shown, shuffle=True)))
    section = compared(figures, batch, model, title="Reconstructions", words=READING + NORMALISED, rows=shown)
    return Work(found=found, sections=(section,))


def show_enhanced(
    config: NoisyData, model: DenseUNet, data: str | Path, shown: int, figures: Figures[NoisyBatch]
) -> Work:
    """Noisy sounds, the enhanced ones, and the clean ones."""
    found = enhancement.held_out(config, model, data)
    batch = next(iter(batches(config, data, size=shown, samples=shown, shuffle=True)))
    section = compared(figures, batch, model, title="Before and after", words=BEFORE_AND_AFTER, rows=shown)
    return Work(found=found, sections=(section,))
