"""Normalised spectrograms of padded waveforms, for the samples of a thread and for whole batches on a GPU.

`LogMel` is librosa's log-mel spectrogram, vectorised over any number of waveforms. The mel filters come from librosa
(the extra `audio`) to avoid a second implementation. librosa is an optional dependency because it requires scikit-learn
and scipy; `Fbank` does not need it. `Librosa` calls librosa itself, sample by sample on the CPU: constant-Q transform,
chroma, mel cepstrum and tempogram.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from maskstream.pipelines.masks import Mask, TokenGrid
from maskstream.shards.arrays import Float32s
from maskstream.shards.config import Config
from maskstream.shards.limits import PositiveInt
from maskstream.shards.media.fbank import Fbank

FLOOR_DB = -100.0
"""Level of silence in decibels, as in librosa."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogMel(Config):
    """Power of mel bands in decibels, as librosa computes it.

    Windows are periodic Hann, centred, with zeros at both ends. The mel bands from `low_hz` to half the sample rate use
    Slaney's scale and normalisation.

    Attributes:
        sample_rate: Sample rate of the waveform in Hz.
        n_bins: Number of mel bands.
        n_fft: Samples per window.
        hop: Samples between windows.
        low_hz: Lower end of the mel bands in Hz.
        top_db: Values more than this far below a waveform's maximum are raised to that level; None for no limit.
    """

    sample_rate: PositiveInt = 16000
    n_bins: PositiveInt = 128
    n_fft: PositiveInt = 1024
    hop: PositiveInt = 160
    low_hz: float = 0.0
    top_db: float | None = 80.0

    def validate(self) -> None:
        if not 0 <= self.low_hz < self.sample_rate / 2:
            raise ValueError(
                f"low_hz must be in [0, {self.sample_rate / 2}), below half of sample_rate, got {self.low_hz}"
            )

    @property
    def shift(self) -> int:
        """Number of samples between windows."""
        return self.hop

    def n_frames(self, n_samples: int) -> int:
        """Return the number of windows in a waveform of `n_samples` samples."""
        return 1 + n_samples // self.hop if n_samples else 0

    def __call__(self, waveform: Tensor) -> Tensor:
        """Compute the spectrograms of waveforms float32 (..., n): float32 (..., n_frames(n), n_bins), in decibels."""
        if waveform.shape[-1] == 0:
            return waveform.new_zeros((*waveform.shape[:-1], 0, self.n_bins))
        window, banks = _build_constants(self, waveform.device)
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
    """Return the periodic Hann window, float64 (n_fft,)."""
    return torch.hann_window(mel.n_fft, periodic=True, dtype=torch.float64)


@lru_cache(maxsize=16)
def _build_constants(mel: LogMel, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the window, float32 (n_fft,), and the mel filters over the n_fft // 2 + 1 FFT bins, float32 (bins,
    n_bins).
    """
    import librosa

    banks = librosa.filters.mel(
        sr=mel.sample_rate, n_fft=mel.n_fft, n_mels=mel.n_bins, fmin=mel.low_hz, dtype=np.float64
    )
    return hann_window(mel).float().to(device), torch.from_numpy(banks.T.copy()).float().to(device)


Feature = Literal["chroma", "cqt", "mfcc", "tempogram"]
Floats: TypeAlias = Float32s

_BINS: dict[Feature, int] = {"chroma": 12, "cqt": 84, "mfcc": 20, "tempogram": 384}
C1_HZ = 32.703
"""Lowest frequency of librosa's constant-Q transform."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Librosa(Config):
    """A feature of librosa, float32 (..., n_frames, n_bins), identical to librosa's output.

    - "cqt": magnitude of the constant-Q transform in decibels, 12 bins per octave (librosa.cqt, amplitude_to_db)
    - "chroma": energy of each pitch class, normalised to a maximum of 1 per frame (feature.chroma_stft, tuning 0)
    - "mfcc": mel-frequency cepstral coefficients of 128 bands (feature.mfcc)
    - "tempogram": local autocorrelation of the onset strength, 1 at lag 0 (feature.tempogram)

    Frames are centred.

    Attributes:
        feature: Name of the feature.
        sample_rate: Sample rate of the waveform in Hz.
        hop: Samples between frames.
        bins: Number of bins; None for librosa's default: 84, 12, 20 and 384.
        n_fft: Samples per window; not used for "cqt".
        low_hz: Lowest frequency of "cqt" and "mfcc" in Hz; None for librosa's defaults, C1 (32.7 Hz) and 0.

    Raises:
        ValueError: The feature is unknown, a size is not allowed, or librosa is not installed.
    """

    feature: Feature
    sample_rate: PositiveInt = 16000
    hop: PositiveInt = 160
    bins: PositiveInt | None = None
    n_fft: PositiveInt = 2048
    low_hz: float | None = None

    def validate(self) -> None:
        if self.low_hz is not None and self.feature not in ("cqt", "mfcc"):
            raise ValueError(
                f"low_hz={self.low_hz} applies only to 'cqt' and 'mfcc'; leave it out for {self.feature!r}"
            )
        if self.low_hz is not None and not 0 <= self.low_hz < self.sample_rate / 2:
            raise ValueError(
                f"low_hz must be in [0, {self.sample_rate / 2}), below half of sample_rate, got {self.low_hz}"
            )
        if self.feature == "cqt" and (self.low_hz or C1_HZ) * 2 ** (self.n_bins / 12) > self.sample_rate / 2:
            raise ValueError(
                f"{self.n_bins} bins at 12 per octave from {self.low_hz or C1_HZ:.1f} Hz exceed half of "
                f"sample_rate={self.sample_rate}; use fewer bins, a lower low_hz or a higher sample_rate"
            )

    @property
    def n_bins(self) -> int:
        """Number of bins per frame."""
        return _BINS[self.feature] if self.bins is None else self.bins

    @property
    def shift(self) -> int:
        """Number of samples between frames."""
        return self.hop

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames in a waveform of `n_samples` samples."""
        return 1 + n_samples // self.hop if n_samples else 0

    def __call__(self, waveform: Tensor) -> Tensor:
        """Compute the features of waveforms float32 (..., n) on the CPU: float32 (..., n_frames(n), n_bins)."""
        shape, n = waveform.shape[:-1], waveform.shape[-1]
        made = waveform.new_empty((shape.numel(), self.n_frames(n), self.n_bins))
        if n:
            for row, out in zip(waveform.reshape(-1, n).numpy(), made.numpy(), strict=True):
                out[:] = _COMPUTED[self.feature](self, row).T
        return made.reshape(*shape, *made.shape[1:])


def check_librosa(feature: str) -> None:
    """Raise ValueError if librosa, required by `feature`, is not installed."""
    if find_spec("librosa") is None:
        raise ValueError(f"{feature} requires librosa; run pip install 'maskstream[audio]', or use features=Fbank()")


def _compute_cqt(own: Librosa, sound: Floats) -> Floats:
    import librosa

    found = librosa.cqt(sound, sr=own.sample_rate, hop_length=own.hop, fmin=own.low_hz, n_bins=own.n_bins)
    decibels: Floats = librosa.amplitude_to_db(np.abs(found))
    return decibels


def _compute_chroma(own: Librosa, sound: Floats) -> Floats:
    import librosa

    return librosa.feature.chroma_stft(
        y=sound, sr=own.sample_rate, n_fft=own.n_fft, hop_length=own.hop, n_chroma=own.n_bins, tuning=0.0
    )


def _compute_mfcc(own: Librosa, sound: Floats) -> Floats:
    import librosa

    found: Floats = librosa.feature.mfcc(
        y=sound, sr=own.sample_rate, n_mfcc=own.n_bins, n_fft=own.n_fft, hop_length=own.hop, fmin=own.low_hz or 0.0
    )
    return found


def _compute_tempogram(own: Librosa, sound: Floats) -> Floats:
    import librosa

    strength = librosa.onset.onset_strength(y=sound, sr=own.sample_rate, hop_length=own.hop, n_fft=own.n_fft)
    return librosa.feature.tempogram(
        onset_envelope=strength, sr=own.sample_rate, hop_length=own.hop, win_length=own.n_bins
    )


_COMPUTED: dict[Feature, Callable[[Librosa, Floats], Floats]] = {
    "chroma": _compute_chroma,
    "cqt": _compute_cqt,
    "mfcc": _compute_mfcc,
    "tempogram": _compute_tempogram,
}
"""Functions that return (n_bins, n_frames) for one waveform (n,)."""


Features = Fbank | LogMel | Librosa


@dataclass(frozen=True, kw_only=True, slots=True)
class Spectrogram:
    """`frames` frames of (features - mean) / (scale * deviation).

    Frames after the end of the audio are filled before normalisation: with 0 for `Fbank`, as in Audio-MAE; with `mean`
    for other features such as `LogMel`, where 0 dB is loud.

    Raises:
        ValueError: The features need librosa and it is not installed.
    """

    features: Features
    frames: int
    """Number of frames."""
    mean: float
    """Mean of the features over the dataset."""
    deviation: float
    """Standard deviation of the features over the dataset."""
    scale: float = 2.0
    """Factor of the standard deviation; 2 is Audio-MAE's."""

    def __post_init__(self) -> None:
        if not isinstance(self.features, Fbank):
            check_librosa(type(self.features).__name__)

    def __call__(
        self, waveform: Tensor, length: Tensor, strips: Tensor | None = None, *, out: Tensor | None = None
    ) -> Tensor:
        """Compute the spectrograms of waveforms, float32 (B, n) to (B, frames, bins).

        Args:
            waveform: float32 (B, n), padded with 0.
            length: int64 (B,), number of valid samples.
            strips: int64 (B, 4), frames [t0, t1) and bins [f0, f1) that SpecAugment sets to 0, the dataset's mean.
            out: Memory for the result.
        """
        if not isinstance(self.features, Fbank):  # Fbank subtracts the mean of each window itself
            waveform = waveform - waveform.sum(dim=1, keepdim=True) / length.clamp(min=1)[:, None]
            waveform *= torch.arange(waveform.shape[1], device=waveform.device) < length[:, None]
        return self.normalised(self.features(waveform), length, strips, out=out)

    def normalised(
        self, found: Tensor, length: Tensor, strips: Tensor | None = None, *, out: Tensor | None = None
    ) -> Tensor:
        """Normalise computed features of whole padded waveforms, float32 (B, n_frames, bins); other arguments as in the
        call.
        """
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
        """Value of frames after the end of the audio, before normalisation."""
        return 0.0 if isinstance(self.features, Fbank) else self.mean

    def n_frames(self, length: Tensor) -> Tensor:
        """Return the number of valid frames, int64 (B,), from the number of valid samples, int64 (B,)."""
        if isinstance(self.features, Fbank):
            frames = torch.where(
                length >= self.features.window, 1 + (length - self.features.window) // self.features.shift, 0
            )
        else:
            frames = 1 + length // self.features.shift
        return frames.clamp(max=self.frames)


SPECTROGRAM = "spectrogram"
"""Mask input that requires computing spectrograms per sample."""


def check_on_device(features: Features, on_device: bool | Literal["auto"], *masks: Mask | None) -> None:
    """Raise ValueError if `features` cannot be computed on a device, or would be too late there for
    one of the masks.
    """
    if on_device is True and (mask := _find_following_mask(masks)):
        raise ValueError(
            f"{mask} needs the spectrogram of each sample, but on the device spectrograms are computed per "
            "batch; use on_device='auto' and leave out backend='dali'"
        )
    if isinstance(features, Librosa) and on_device is True:
        raise ValueError(
            f"librosa computes {features.feature!r} in the loader's threads, not on the device, got "
            "on_device=True; use on_device='auto'"
        )


def is_on_device(
    features: Features, on_device: bool | Literal["auto"], device: torch.device, *masks: Mask | None
) -> bool:
    """Return whether spectrograms are computed for whole batches on the device.

    "auto" does so on CUDA, except with librosa or for a mask that reads them.
    """
    if on_device != "auto":
        return on_device
    return device.type == "cuda" and not isinstance(features, Librosa) and _find_following_mask(masks) is None


def _find_following_mask(masks: Sequence[Mask | None]) -> Mask | None:
    """Return the first mask that reads the spectrogram."""
    return next((mask for mask in masks if mask is not None and SPECTROGRAM in mask.needs), None)


def compute_spectrogram_grid(frames: int, bins: int, patch: tuple[int, int]) -> TokenGrid:
    """Return the (time, freq) grid of a spectrogram in tokens of `patch` frames and bins.

    Raises:
        ValueError: Frames and bins are not multiples of the patch.
    """
    if min(patch) < 1 or frames < patch[0] or frames % patch[0] or bins % patch[1] or bins < patch[1]:
        raise ValueError(
            f"a spectrogram of {frames} frames and {bins} bins cannot be divided into tokens of {patch[0]} x "
            f"{patch[1]}; change clip.seconds, features.n_bins or patch"
        )
    return TokenGrid(axes=("time", "freq"), shape=(frames // patch[0], bins // patch[1]), patch=patch)
