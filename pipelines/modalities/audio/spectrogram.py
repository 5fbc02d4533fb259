"""Normalised spectrograms of padded waveforms, for the samples of a thread and for whole batches on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from maskstream.pipelines.masks import TokenGrid
from maskstream.shards.media.fbank import Fbank

from .librosa_feature import Librosa, check_librosa
from .log_mel import LogMel

Features = Fbank | LogMel | Librosa


@dataclass(frozen=True, kw_only=True, slots=True)
class Spectrogram:
    """`frames` frames of (features - mean) / (scale * deviation).

    mean, deviation: mean and standard deviation of the features over the dataset. Frames behind the end of a sound are
    filled before normalisation: with 0 for `Fbank`, as in Audio-MAE; with `mean` for others, such as `LogMel`, whose 0
    dB is loud. The scale of 2 is Audio-MAE's. Raises ValueError where the features need librosa and it is not there.
    """

    features: Features
    frames: int
    mean: float
    deviation: float
    scale: float = 2.0

    def __post_init__(self) -> None:
        if not isinstance(self.features, Fbank):
            check_librosa(type(self.features).__name__)

    def __call__(
        self, waveform: Tensor, length: Tensor, strips: Tensor | None = None, *, out: Tensor | None = None
    ) -> Tensor:
        """The spectrograms of waveforms, float32 (B, n) to (B, frames, bins), written to `out` if it is given.

        length: int64 (B,), the number of valid samples; the padding behind them must be 0. strips: int64 (B, 4), the
        frames [t0, t1) and bins [f0, f1) that SpecAugment sets to 0, the dataset's mean.
        """
        if not isinstance(self.features, Fbank):  # Fbank subtracts the mean of each window itself
            waveform = waveform - waveform.sum(dim=1, keepdim=True) / length.clamp(min=1)[:, None]
            waveform *= torch.arange(waveform.shape[1], device=waveform.device) < length[:, None]
        return self.normalised(self.features(waveform), length, strips, out=out)

    def normalised(
        self, found: Tensor, length: Tensor, strips: Tensor | None = None, *, out: Tensor | None = None
    ) -> Tensor:
        """The same from computed features of whole padded waveforms, float32 (B, n_frames, bins)."""
        out = found.new_empty((len(found), self.frames, found.shape[2])) if out is None else out
        kept, silence = min(self.frames, found.shape[1]), (self.padding - self.mean) / (self.scale * self.deviation)
        torch.sub(found[:, :kept], self.mean, out=out[:, :kept]).div_(self.scale * self.deviation)
        out[:, kept:] = silence
        frame, heard = torch.arange(self.frames, device=out.device), self.n_frames(length)
        if out.is_cuda or int(heard.min()) < kept:
            out.masked_fill_((frame >= heard[:, None])[..., None], silence)
        if strips is not None:
            bin_ = torch.arange(out.shape[2], device=out.device)
            t, f = ((x >= strips[:, [i]]) & (x < strips[:, [i + 1]]) for i, x in ((0, frame), (2, bin_)))
            out.masked_fill_(t[:, :, None] | f[:, None, :], 0.0)
        return out

    @property
    def padding(self) -> float:
        """The value of frames behind the end of a sound, before normalisation."""
        return 0.0 if isinstance(self.features, Fbank) else self.mean

    def n_frames(self, length: Tensor) -> Tensor:
        """The number of valid frames, int64 (B,), from the number of valid samples, int64 (B,)."""
        if isinstance(self.features, Fbank):
            frames = torch.where(
                length >= self.features.window, 1 + (length - self.features.window) // self.features.shift, 0
            )
        else:
            frames = 1 + length // self.features.shift
        return frames.clamp(max=self.frames)


def check_on_device(features: Features, on_device: bool | Literal["auto"]) -> None:
    """Raises ValueError if `features` are to be made on a device and cannot be."""
    if isinstance(features, Librosa) and on_device is True:
        raise ValueError(
            f"librosa computes {features.feature!r} in the loader's threads, got on_device=True; use on_device='auto'"
        )


def is_on_device(features: Features, on_device: bool | Literal["auto"], device: torch.device) -> bool:
    """Whether spectrograms are made of whole batches on the device; "auto" does so on CUDA, but not with librosa."""
    return device.type == "cuda" and not isinstance(features, Librosa) if on_device == "auto" else on_device


def spectrogram_grid(frames: int, bins: int, patch: tuple[int, int]) -> TokenGrid:
    """The (time, freq) grid of a spectrogram in tokens of `patch` frames and bins.

    Raises ValueError if frames and bins are not multiples of the patch.
    """
    if min(patch) < 1 or frames < patch[0] or frames % patch[0] or bins % patch[1] or bins < patch[1]:
        raise ValueError(
            f"a spectrogram of {frames} frames and {bins} bins does not divide into tokens of {patch[0]} x {patch[1]}; "
            "change clip.seconds, features.n_bins or patch"
        )
    return TokenGrid(axes=("time", "freq"), shape=(frames // patch[0], bins // patch[1]), patch=patch)
