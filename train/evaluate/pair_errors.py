"""Evaluates the reconstruction of masked video and sound, compared with baselines that see no sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...pipelines.augment import CenterCrop
from ...pipelines.augment.diffusion import LinearNoise
from ...pipelines.masks.core.batch import MaskBatch
from ...pipelines.modalities.audio.batch import AudioBatch
from ...pipelines.modalities.audiovisual.batch import AudioVisualBatch
from ...pipelines.modalities.audiovisual.data import AudioVisualData
from ...pipelines.modalities.video.batch import VideoBatch
from ..nn.pair_model import PairModel
from ..nn.spectrogram_tokens import SpectrogramTokens
from ..nn.video_tokens import VideoTokens
from .held_out import batches

MEASURED = 256
"""The largest number of samples for the errors, and for the average tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Error:
    """The mean squared errors over target tokens: the model's; that of predicting each token's mean; and that of
    predicting the average token at its position in the training set (None without a training set).
    """

    model: float
    mean: float
    average: float | None

    def words(self) -> str:
        """The model's error compared with the baselines, in words."""
        guesses = {"each token's mean": self.mean}
        if self.average is not None:
            guesses["the average token of its position in the training set"] = self.average
        return beside(self.model, guesses)


def beside(error: float, guesses: dict[str, float]) -> str:
    """An error compared with those of baselines by name, in words, with a warning if one of them is as good."""
    each = [f"{_percent(error, guess)}predicting {name} ({guess:.3f})" for name, guess in guesses.items()]
    verdict = "" if error < min(guesses.values()) else ": the model does not generalise to them"
    return f"{error:.3f}; {', '.join(each)}{verdict}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Errors:
    """The errors of video and of sound, over `samples` samples."""

    video: Error
    audio: Error
    samples: int


def errors(config: AudioVisualData, model: PairModel, data: str | Path, train: str | None) -> Errors:
    """The errors on up to 256 samples of the split at `data`, with the recipe's masks at the end of a run.

    train: the training split of the same dataset, for the average tokens.
    """
    averages = None if train is None else _averages(config, model, train)
    sums = torch.zeros(2, 4, dtype=torch.float64)
    samples = 0
    with torch.inference_mode():
        for batch in pairs_of(config, data, 16):
            clips, sounds = clips_and_sounds(model.reconstruction_rows(batch))
            for part, (made, true, mask) in enumerate(_predictions(model, clips, sounds)):
                zero = torch.zeros_like(true)
                guesses = (made, zero, zero if averages is None else averages[part][mask.target])
                found = [((guess - true).square().mean(dim=2) * mask.weight).sum() for guess in guesses]
                sums[part] += torch.stack([*found, mask.weight.sum()]).double()
            samples += len(clips) if clips.weight is None else int(clips.weight.sum())
    video, audio = (
        Error(model=one, mean=mean, average=None if averages is None else average)
        for one, mean, average in (sums[:, :3] / sums[:, 3:]).tolist()
    )
    return Errors(video=video, audio=audio, samples=samples)


def pairs_of(
    config: AudioVisualData,
    data: str | Path,
    size: int,
    *,
    samples: int = MEASURED,
    shuffle: bool = False,
    whole: bool = False,
    noise: LinearNoise | None = None,
) -> Iterator[AudioVisualBatch]:
    """The recipe's batches on the CPU, with centre crops. whole: one view without masks or noise."""
    shown = replace(config, augment=CenterCrop(), noise=noise, spectrogram_noise=None, spec_augment=None)
    if whole:
        shown = replace(shown, video_mask=None, audio_mask=None, views=1)
    return batches(shown, data, size=size, samples=samples, shuffle=shuffle)


def masked_parts(clips: VideoBatch, sounds: AudioBatch) -> tuple[Tensor, MaskBatch, MaskBatch]:
    if sounds.spectrogram is None or clips.mask is None or sounds.mask is None:
        raise ValueError("the batch has no masks or no spectrogram; give an audiovisual_loader both masks")
    return sounds.spectrogram, clips.mask, sounds.mask


def clips_and_sounds(batch: AudioVisualBatch) -> tuple[VideoBatch, AudioBatch]:
    """Splits a batch into a batch of clips and a batch of sounds."""
    clips = VideoBatch(
        video=batch.video,
        mask=batch.video_mask,
        flow=None,
        label=batch.label,
        key=batch.key,
        pts_s=batch.pts_s,
        fields=batch.fields,
        weight=batch.weight,
    )
    sounds = AudioBatch(
        waveform=batch.waveform,
        length=batch.length,
        spectrogram=batch.spectrogram,
        mask=batch.audio_mask,
        label=batch.label,
        key=batch.key,
        start_s=batch.audio_start_s,
        fields=batch.fields,
        weight=batch.weight,
    )
    return clips, sounds


def _predictions(model: PairModel, clips: VideoBatch, sounds: AudioBatch) -> Iterator[tuple[Tensor, Tensor, MaskBatch]]:
    """Predictions, targets and mask of the video's target tokens, then of the sound's."""
    spectrogram, video_mask, audio_mask = masked_parts(clips, sounds)
    made = model.predict(clips.video, spectrogram, video_mask, audio_mask)
    kinds: tuple[VideoTokens | SpectrogramTokens, ...] = (model.video, model.audio)
    for kind, data, mask, one in zip(kinds, (clips.video, spectrogram), (video_mask, audio_mask), made, strict=True):
        tokens = kind.split(data)
        row = torch.arange(len(tokens))[:, None]
        yield one.float(), kind.targets(tokens[row, mask.target]), mask


def _averages(config: AudioVisualData, model: PairModel, train: str) -> tuple[Tensor, Tensor]:
    """The average token of each position over a split, float32 (N, values), for the video and for the sound."""
    kinds: tuple[VideoTokens | SpectrogramTokens, ...] = (model.video, model.audio)
    sums: list[Tensor] = []
    samples = 0
    for batch in pairs_of(config, train, 16, whole=True):
        if batch.spectrogram is None:
            raise ValueError("the batch has no spectrogram; take it from an audiovisual_loader")
        real = torch.ones(len(batch)) if batch.weight is None else batch.weight
        found = [
            (kind.targets(kind.split(data)) * real[:, None, None]).sum(dim=0)
            for kind, data in zip(kinds, (batch.video, batch.spectrogram), strict=True)
        ]
        sums = found if not sums else [a + b for a, b in zip(sums, found, strict=True)]
        samples += int(real.sum())
    return sums[0] / samples, sums[1] / samples


def _percent(error: float, guess: float) -> str:
    """How far an error lies below or above that of a baseline; without a percentage if the baseline's is 0."""
    return f"{abs(1 - error / guess):.0%} {'below' if error < guess else 'above'} " if guess > 0 else "beside "
