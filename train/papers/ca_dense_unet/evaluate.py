"""Evaluates speech and sound enhancement on a split."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ....pipelines.modalities.audio.data import NoisyData
from ...evaluate.held_out import HeldOut, Score, batches
from .model import DenseUNet, si_sdr

MEASURED = 128
"""The largest number of samples that are measured."""


def held_out(config: NoisyData, model: DenseUNet, data: str | Path) -> HeldOut:
    """The SI-SDR and the loss of the model on the split."""
    loss, before, after, measured = gains(config, model, data)
    return HeldOut(
        facts={
            "clip": f"{config.clip.seconds:g} s at {config.clip.sample_rate} Hz, {config.microphones} microphones",
            f"SI-SDR of {measured} of these sounds": f"{before:.1f} dB noisy, {after:.1f} dB enhanced",
            "error relative to the mixture's": f"{loss:.3f}",
        },
        learns="A network learns to recover the clean sound from the noisy sounds of several microphones.",
        loss="The error of the enhanced sounds relative to that of the noisy ones",
        baseline="returning the noisy sound",
        score=Score(name="SI-SDR in dB", value=after, baselines={"the noisy sound": before}, lower_is_better=False),
    )


def gains(config: NoisyData, model: DenseUNet, data: str | Path) -> tuple[float, float, float, int]:
    """The mean loss, the mean SI-SDR in dB before and after enhancement, and the number of samples (up to 128)."""
    kept: list[Tensor] = []
    with torch.inference_mode():
        for batch in batches(config, data, size=8, samples=MEASURED):
            real = torch.ones(len(batch)) if batch.weight is None else batch.weight
            enhanced = model.enhance(batch.mixture)
            left, noise = ((x - batch.clean).abs().mean(dim=(1, 2)) for x in (enhanced, batch.mixture))
            decibels = [si_sdr(x, batch.clean).mean(dim=1) for x in (batch.mixture, enhanced)]
            kept.append(torch.stack((left / noise, *decibels), dim=1)[real > 0])
    rows = torch.cat(kept).double()
    loss, before, after = rows.mean(dim=0).tolist()
    return loss, before, after, len(rows)
