"""Evaluates audio enhancement on a split."""

import torch
from torch import Tensor

from maskstream.pipelines.modalities.audio.data import NoisyData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import Compared, Evaluation, Score, TrainingLoss, read_batches

from .model import DenseUNet, DenseUNetConfig, compute_si_sdr

MEASURED = 128
"""The largest number of samples that are measured."""
READING = (
    "Spectrograms of the first microphone: time runs to the right and frequency upwards; bright is loud. Each "
    "signal was mixed with noise from another direction. The network predicts a complex mask for every "
    "microphone; the result is the mixture times the mask. SI-SDR is the ratio of clean signal to error in "
    "decibels, independent of loudness."
)


def evaluate(model: DenseUNet, config: NoisyData, data: Manifest, shown: int) -> Evaluation:
    """Measure SI-SDR and error on a split, and enhance some samples.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of samples to show.
    """
    loss, before, after, measured = measure_gains(config, model, data)
    batch = next(iter(read_batches(config, data, size=shown, samples=shown, shuffle=True)))
    with torch.inference_mode():
        made = model.reconstructed(batch)
    rows, noisy = range(min(shown, len(batch))), "the noisy audio"
    return Evaluation(
        scores=(
            Score(
                name="SI-SDR",
                value=after,
                unit="dB",
                of="sounds",
                count=measured,
                baselines={noisy: before},
                lower_is_better=False,
            ),
            Score(
                name="error relative to the mixture's", value=loss, of="sounds", count=measured, baselines={noisy: 1.0}
            ),
        ),
        examples=(Compared(title="Before and after", reading=READING, batch=batch, made=made, rows=rows),),
        loss=TrainingLoss(
            name="The error of the enhanced audio relative to the error of the noisy audio",
            baseline="returning the noisy audio",
        ),
        learns="A network learns to recover clean audio from the noisy signals of several microphones.",
    )


def measure_gains(config: NoisyData, model: DenseUNet, data: Manifest) -> tuple[float, float, float, int]:
    """Return the mean loss, the mean SI-SDR in dB before and after enhancement, and the number of samples (up to 128).

    Args:
        config: Data config of the run.
        model: The model.
        data: The split.
    """
    kept: list[Tensor] = []
    with torch.inference_mode():
        for batch in read_batches(config, data, size=8, samples=MEASURED):
            real = torch.ones(len(batch)) if batch.weight is None else batch.weight
            enhanced = model.enhance(batch.mixture)
            left, noise = ((x - batch.clean).abs().mean(dim=(1, 2)) for x in (enhanced, batch.mixture))
            decibels = [compute_si_sdr(x, batch.clean).mean(dim=1) for x in (batch.mixture, enhanced)]
            kept.append(torch.stack((left / noise, *decibels), dim=1)[real > 0])
    rows = torch.cat(kept).double()
    loss, before, after = rows.mean(dim=0).tolist()
    return loss, before, after, len(rows)


EVALUATIONS = {DenseUNetConfig: evaluate}
