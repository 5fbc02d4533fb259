"""Evaluates the reconstruction of masked spectrograms."""

from dataclasses import replace

import torch

from maskstream.pipelines.modalities.audio.batch import AudioBatch
from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import NORMALISED, Compared, Evaluation, TrainingLoss, read_batches
from maskstream.train.evaluate.patches import PatchLosses, measure_patches
from maskstream.train.nn.masked_autoencoder import MaskedAutoencoder

from .model import SpectrogramAutoencoderConfig

MEASURED = 512
"""The largest number of samples that are measured."""
READING = (
    "Time runs to the right, frequency rises upwards, bright is loud. The encoder saw only the coloured tokens of the "
    "middle picture. In the last one the others are the model's predictions. "
) + NORMALISED


def evaluate(model: MaskedAutoencoder[AudioBatch], config: AudioData, data: Manifest, shown: int) -> Evaluation:
    """The loss on clips of sounds as they are, without gain and mixtures, and reconstructions of some."""
    plain = replace(config, roll_gain=None, spec_augment=None, mixup=None, views=1)
    batch = next(iter(read_batches(plain, data, size=shown, samples=shown, shuffle=True)))
    with torch.inference_mode():
        made = model.reconstructed(batch)
    rows = range(min(shown, len(batch)))
    return Evaluation(
        scores=(measure_losses(plain, model, data).score("sounds", "token"),),
        examples=(Compared(title="Reconstructions", reading=READING, batch=batch, made=made, rows=rows),),
        loss=TrainingLoss(
            name="The mean squared error over the target tokens' normalised values",
            baseline="predicting every token's mean",
        ),
    )


def measure_losses(config: AudioData, model: MaskedAutoencoder[AudioBatch], data: Manifest) -> PatchLosses:
    """The losses over up to 512 samples."""
    return measure_patches(model, read_batches(config, data, size=32, samples=MEASURED))


EVALUATIONS = {SpectrogramAutoencoderConfig: evaluate}
