"""Padded waveforms to normalised spectrograms of one length, the same code for a sample and for a batch on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ....shards.media.fbank import Fbank
from ...masks import TokenGrid
from .log_mel import LogMel

Features = Fbank | LogMel


@dataclass(frozen=True, kw_only=True, slots=True)
class Spectrogram:
    """`frames` frames of `features`, less `mean`, divided by `scale * deviation`.

    Frames behind the end of a sound are 0 before the filterbank is normalised, as in Audio-MAE (and the dataset's mean
    with LogMel, where 0 dB would be loud). Audio-MAE's scale is 2.
    """

    features: Features
    frames: int
    mean: float
    deviation: float
    scale: float = 2.0

    def __call__(
        self, waveform: Tensor, length: Tensor, strips: Tensor | None = None, *, out: Tensor | None = None
    ) -> Tensor:
        """Waveforms float32 (B, n), of which the first `length` int64 (B,) samples are sound, the others 0.

        strips: int64 (B, 4), frames [t0, t1) and bins [f0, f1) that become 0, as in SpecAugment. Returns float32
        (B, frames, bins), in the memory `out` if it is given.
        """
        if not isinstance(self.features, Fbank):  # whose windows lie inside the sound and lose a mean of their own
            waveform = waveform - waveform.sum(dim=1, keepdim=True) / length.clamp(min=1)[:, None]
            waveform *= torch.arange(waveform.shape[1], device=waveform.device) < length[:, None]
        return self.normalised(self.features(waveform), length, strips, out=out)

    def normalised(
        self, found: Tensor, length: Tensor, strips: Tensor | None = None, *, out: Tensor | None = None
    ) -> Tensor:
        """The same of features that were found already, float32 (B, n_frames, bins), of the whole waveforms."""
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
        """What frames behind the end of a sound are, before they are normalised."""
        return 0.0 if isinstance(self.features, Fbank) else self.mean

    def n_frames(self, length: Tensor) -> Tensor:
        """How many of the frames are of the sound, int64 like `length`."""
        if isinstance(self.features, Fbank):
            frames = torch.where(
                length >= self.features.window, 1 + (length - self.features.window) // self.features.shift, 0
            )
        else:
            frames = 1 + length // self.features.shift
        return frames.clamp(max=self.frames)


def spectrogram_grid(frames: int, bins: int, patch: tuple[int, int]) -> TokenGrid:
    """The (time, freq) grid of a spectrogram in tokens of `patch` frames and bins; ValueError where they do not fit."""
    if min(patch) < 1 or frames < patch[0] or frames % patch[0] or bins % patch[1] or bins < patch[1]:
        raise ValueError(
            f"a spectrogram of {frames} frames and {bins} bins does not divide into tokens of {patch[0]} x {patch[1]}; "
            "change the clip's seconds, the features' n_bins or patch"
        )
    return TokenGrid(axes=("time", "freq"), shape=(frames // patch[0], bins // patch[1]), patch=patch)
