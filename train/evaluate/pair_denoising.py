"""Evaluates the denoising of noised video and spectrogram patches, compared with a linear baseline."""

from __future__ import annotations

from pathlib import Path

import torch

from ...pipelines.modalities.audiovisual.data import AudioVisualData
from ..models.audiovisual_diffusion import NOISE, AudioVisualDiffusion
from .pair_errors import beside, pairs_of


def denoising_facts(config: AudioVisualData, model: AudioVisualDiffusion, data: str | Path) -> dict[str, str]:
    """The mean squared errors of the denoised patches of up to 256 samples, at times drawn as in training, in words.

    They are compared with those of the noised patch times sqrt(a), where a is its share of signal: the best linear
    estimate for patches of mean 0 and variance 1.
    """
    sums = torch.zeros(2, 3, dtype=torch.float64)
    with torch.inference_mode():
        for batch in pairs_of(config, data, 16, noise=NOISE):
            for part, (made, clean, noisy) in enumerate(model.denoise(batch)):
                mask, time = (batch.audio_mask, batch.audio_time) if part else (batch.video_mask, batch.video_time)
                if mask is None or time is None:
                    raise ValueError("the batch has no masks or no noise; give the loader both masks and noise=")
                scaled = NOISE.kept()[time].sqrt().float()[:, None, None] * noisy
                errors = [((one - clean).square().mean(dim=2) * mask.weight).sum() for one in (made, scaled)]
                sums[part] += torch.stack([*errors, mask.weight.sum()]).double()
    video, audio = (sums[:, :2] / sums[:, 2:]).tolist()
    return {
        f"error of denoised {name}": beside(error, {"the scaled noised patch": baseline})
        for name, (error, baseline) in (("video", video), ("sound", audio))
    }
