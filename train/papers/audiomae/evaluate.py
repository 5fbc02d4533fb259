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
"""Maximum number of samples that are measured."""
READING = (
    "Time runs to the right and frequency upwards; bright is loud. The encoder saw only the coloured tokens of the "
    "middle image. In the last one, the other tokens are the model's predictions. "
) + NORMALISED


def evaluate(model: MaskedAutoencoder[AudioBatch], config: AudioData, data: Manifest, shown: int) -> Evaluation:
    """Measure the loss on audio clips without gain and mixtures, and reconstruct some of them.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of reconstructions to show.
    """
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
    """Return the losses over up to 512 samples.

    Args:
        config: Data config of the run.
        model: The model.
        data: The split.
    """
    return measure_patches(model, read_batches(config, data, size=32, samples=MEASURED))


EVALUATIONS = {SpectrogramAutoencoderConfig: evaluate}
