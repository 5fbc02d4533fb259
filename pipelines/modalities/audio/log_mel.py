"""librosa's log-mel spectrogram, vectorised over any number of waveforms.

Its mel filters are librosa's (the extra `audio`), bit for bit, instead of a copy that would be a second truth. librosa
is no base dependency because it brings scikit-learn and scipy; `Fbank` serves all else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from maskstream.shards.config import Config

FLOOR_DB = -100.0
"""The level of silence in decibels, as in librosa."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogMel(Config):
    """The power of `n_bins` mel bands in decibels, as librosa computes it.

    Windows of `n_fft` samples, one every `hop` samples: periodic Hann, centred, with zeros at both ends. The mel bands
    from low_hz to half of sample_rate have Slaney's scale and normalisation. top_db: values more than this far below
    the loudest of a waveform are raised to that level; None for no limit.
    """

    sample_rate: int = 16000
    n_bins: int = 128
    n_fft: int = 1024
    hop: int = 160
    low_hz: float = 0.0
    top_db: float | None = 80.0

    def __post_init__(self) -> None:
        if min(self.n_bins, self.n_fft, self.hop) < 1:
            raise ValueError(f"{self}: n_bins, n_fft and hop must be at least 1")
        if not 0 <= self.low_hz < self.sample_rate / 2:
            raise ValueError(f"low_hz must be in [0, {self.sample_rate / 2}), half of sample_rate; got {self.low_hz}")

    @property
    def shift(self) -> int:
        """The number of samples from one window to the next."""
        return self.hop

    def n_frames(self, n_samples: int) -> int:
        """The number of windows of a waveform of `n_samples` samples."""
        return 1 + n_samples // self.hop if n_samples else 0

    def __call__(self, waveform: Tensor) -> Tensor:
        """The spectrograms of waveforms float32 (..., n): float32 (..., n_frames(n), n_bins), in decibels."""
        if waveform.shape[-1] == 0:
            return waveform.new_zeros((*waveform.shape[:-1], 0, self.n_bins))
        window, banks = _constants(self, waveform.device)
        flat = waveform.reshape(-1, waveform.shape[-1])
        spectrum = torch.stft(
            flat, self.n_fft, self.hop, window=window, center=True, pad_mode="constant", return_complex=True
        )
        power = (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)
        decibels = torch.matmul(power, banks).clamp_(min=10 ** (FLOOR_DB / 10)).log10_().mul_(10)
        if self.top_db is not None:
            decibels = torch.maximum(decibels, decibels.amax(dim=(1, 2), keepdim=True) - self.top_db)
        return decibels.reshape(*waveform.shape[:-1], *decibels.shape[1:])


def hann_window(mel: LogMel) -> Tensor:
    """The periodic Hann window, float64 (n_fft,)."""
    return torch.hann_window(mel.n_fft, periodic=True, dtype=torch.float64)


@lru_cache(maxsize=16)
def _constants(mel: LogMel, device: torch.device) -> tuple[Tensor, Tensor]:
    """The window, float32 (n_fft,), and the mel filters over the n_fft // 2 + 1 FFT bins, float32 (bins, n_bins)."""
    import librosa

    banks = librosa.filters.mel(
        sr=mel.sample_rate, n_fft=mel.n_fft, n_mels=mel.n_bins, fmin=mel.low_hz, dtype=np.float64
    )
    return hann_window(mel).float().to(device), torch.from_numpy(banks.T.copy()).float().to(device)
