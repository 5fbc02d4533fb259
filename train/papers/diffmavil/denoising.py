"""Evaluates the denoising of noised video and spectrogram patches, compared with a linear baseline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ....pipelines.modalities.audiovisual.data import AudioVisualData
from ...evaluate.held_out import Score
from ...evaluate.pair_errors import beside, pairs_of
from .model import NOISE, AudioVisualDiffusion


@dataclass(frozen=True, kw_only=True, slots=True)
class Denoised:
    """Mean squared errors of video and of sound: the model's, and that of the scaled noised patch."""

    video: tuple[float, float]
    audio: tuple[float, float]

    def facts(self) -> dict[str, str]:
        """The errors in words."""
        return {
            f"error of denoised {name}": beside(error, {"the scaled noised patch": baseline})
            for name, (error, baseline) in (("video", self.video), ("sound", self.audio))
        }

    def score(self) -> Score:
        """The error of video, beside the scaled noised patch."""
        error, scaled = self.video
        return Score(
            name="squared error of denoised video patches",
            value=error,
            baselines={"the scaled noised patch": scaled},
        )


@torch.inference_mode()
def denoised(config: AudioVisualData, model: AudioVisualDiffusion, data: str | Path) -> Denoised:
    """The errors of the denoised patches of up to 256 samples, at times drawn as in training.

    The noised patch is scaled by sqrt(a), where a is its share of signal: the best linear estimate for patches of mean
    0 and variance 1.
    """
    sums = torch.zeros(2, 3, dtype=torch.float64)
    for batch in pairs_of(config, data, 16, noise=NOISE):
        for part, (made, clean, noisy) in enumerate(model.denoise(batch)):
            mask, time = (batch.audio_mask, batch.audio_time) if part else (batch.video_mask, batch.video_time)
            if mask is None or time is None:
                raise ValueError("the batch has no masks or no noise; give the loader both masks and noise=")
            scaled = NOISE.kept()[time].sqrt().float()[:, None, None] * noisy
            errors = [((one - clean).square().mean(dim=2) * mask.weight).sum() for one in (made, scaled)]
            sums[part] += torch.stack([*errors, mask.weight.sum()]).double()
    (video, scaled_video), (audio, scaled_audio) = (sums[:, :2] / sums[:, 2:]).tolist()
    return Denoised(video=(video, scaled_video), audio=(audio, scaled_audio))
