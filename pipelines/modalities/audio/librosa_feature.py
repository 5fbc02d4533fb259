"""Spectrograms that librosa computes: constant-Q transform, chroma, mel cepstrum and tempogram.

librosa is the extra `audio` of the package. It works on the CPU, sound by sound, in the loader's threads or workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor

from maskstream.shards.config import Config

Feature = Literal["chroma", "cqt", "mfcc", "tempogram"]
Floats: TypeAlias = npt.NDArray[np.float32]

_BINS: dict[Feature, int] = {"chroma": 12, "cqt": 84, "mfcc": 20, "tempogram": 384}
C1_HZ = 32.703
"""Where librosa's constant-Q transform begins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Librosa(Config):
    """A feature of librosa, as float32 (..., n_frames, n_bins), equal to librosa's own.

    - "cqt": the magnitude of the constant-Q transform in decibels, 12 bins an octave (librosa.cqt, amplitude_to_db)
    - "chroma": the energy of each pitch class, the loudest of a frame is 1 (feature.chroma_stft, tuning 0)
    - "mfcc": mel-frequency cepstral coefficients of 128 bands (feature.mfcc)
    - "tempogram": the local autocorrelation of the onset strength, 1 at lag 0 (feature.tempogram)

    Frames are centred, one every `hop` samples. bins: how many bins; None for librosa's number: 84, 12, 20 and 384.
    n_fft: samples of a window, not for "cqt". low_hz: the lowest frequency of "cqt" and "mfcc"; None for librosa's, C1
    (32.7 Hz) and 0. Raises ValueError for other features and illegal sizes, and where librosa is not installed.
    """

    feature: Feature
    sample_rate: int = 16000
    hop: int = 160
    bins: int | None = None
    n_fft: int = 2048
    low_hz: float | None = None

    def __post_init__(self) -> None:
        if self.feature not in get_args(Feature):
            raise ValueError(f"feature={self.feature!r} is not known; legal are {', '.join(get_args(Feature))}")
        if min(self.n_bins, self.n_fft, self.hop) < 1:
            raise ValueError(f"{self}: bins, n_fft and hop must be at least 1")
        if self.low_hz is not None and self.feature not in ("cqt", "mfcc"):
            raise ValueError(f"low_hz={self.low_hz} is for 'cqt' and 'mfcc'; leave it out for {self.feature!r}")
        if self.low_hz is not None and not 0 <= self.low_hz < self.sample_rate / 2:
            raise ValueError(f"low_hz must be in [0, {self.sample_rate / 2}), half of sample_rate; got {self.low_hz}")
        if self.feature == "cqt" and (self.low_hz or C1_HZ) * 2 ** (self.n_bins / 12) > self.sample_rate / 2:
            raise ValueError(
                f"{self.n_bins} bins of 12 an octave from {self.low_hz or C1_HZ:.1f} Hz go beyond half of sample_rate="
                f"{self.sample_rate}; give fewer bins, a lower low_hz or a higher sample_rate"
            )

    @property
    def n_bins(self) -> int:
        """The number of bins of a frame."""
        return _BINS[self.feature] if self.bins is None else self.bins

    @property
    def shift(self) -> int:
        """The number of samples from one frame to the next."""
        return self.hop

    def n_frames(self, n_samples: int) -> int:
        """The number of frames of a waveform of `n_samples` samples."""
        return 1 + n_samples // self.hop if n_samples else 0

    def __call__(self, waveform: Tensor) -> Tensor:
        """The features of waveforms float32 (..., n) on the CPU: float32 (..., n_frames(n), n_bins)."""
        shape, n = waveform.shape[:-1], waveform.shape[-1]
        made = waveform.new_empty((shape.numel(), self.n_frames(n), self.n_bins))
        if n:
            for row, out in zip(waveform.reshape(-1, n).numpy(), made.numpy(), strict=True):
                out[:] = _COMPUTED[self.feature](self, row).T
        return made.reshape(*shape, *made.shape[1:])


def check_librosa(feature: str) -> None:
    """Raises ValueError if librosa is not installed, which `feature` needs."""
    if find_spec("librosa") is None:
        raise ValueError(
            f"{feature} is computed with librosa: pip install 'maskstream[audio]'; or use features=Fbank()"
        )


def _cqt(own: Librosa, sound: Floats) -> Floats:
    import librosa

    found = librosa.cqt(sound, sr=own.sample_rate, hop_length=own.hop, fmin=own.low_hz, n_bins=own.n_bins)
    decibels: Floats = librosa.amplitude_to_db(np.abs(found))
    return decibels


def _chroma(own: Librosa, sound: Floats) -> Floats:
    import librosa

    return librosa.feature.chroma_stft(
        y=sound, sr=own.sample_rate, n_fft=own.n_fft, hop_length=own.hop, n_chroma=own.n_bins, tuning=0.0
    )


def _mfcc(own: Librosa, sound: Floats) -> Floats:
    import librosa

    found: Floats = librosa.feature.mfcc(
        y=sound, sr=own.sample_rate, n_mfcc=own.n_bins, n_fft=own.n_fft, hop_length=own.hop, fmin=own.low_hz or 0.0
    )
    return found


def _tempogram(own: Librosa, sound: Floats) -> Floats:
    import librosa

    strength = librosa.onset.onset_strength(y=sound, sr=own.sample_rate, hop_length=own.hop, n_fft=own.n_fft)
    return librosa.feature.tempogram(
        onset_envelope=strength, sr=own.sample_rate, hop_length=own.hop, win_length=own.n_bins
    )


_COMPUTED: dict[Feature, Callable[[Librosa, Floats], Floats]] = {
    "chroma": _chroma,
    "cqt": _cqt,
    "mfcc": _mfcc,
    "tempogram": _tempogram,
}
"""Each returns (n_bins, n_frames) of one waveform (n,)."""
