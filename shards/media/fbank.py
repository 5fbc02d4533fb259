"""Kaldi's filterbank, vectorised over any number of waveforms, on the CPU or a GPU.

It is the feature of Audio-MAE and of the speech toolkits, and part of the format: dataset.json says its mean and
deviation over a split, so that a loader can normalise it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..config import Config
from ..errors import ShardError

PREEMPHASIS = 0.97
_FLOOR = torch.finfo(torch.float32).eps
_FRAMES = 256
"""Frames that a CPU works on at a time: few enough to stay in its cache, and to need no fresh memory."""
_NEIGHBOURS = 16
"""Triangles that are multiplied at a time: each has few frequencies, nearly the same as its neighbours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fbank(Config):
    """Log energies of `n_bins` triangles on the mel scale, of Hann windows of `window_ms` every `shift_ms`.

    Numerically Kaldi's (feature-fbank, htk-compatible, no energy, no dither, windows that lie inside the waveform):
    each window loses its mean, is pre-emphasised by 0.97, and its power spectrum is summed in float32.
    """

    sample_rate: int = 16000
    n_bins: int = 128
    window_ms: float = 25.0
    shift_ms: float = 10.0
    low_hz: float = 20.0

    def __post_init__(self) -> None:
        if self.n_bins < 1 or self.shift < 1 or self.window < 2:
            raise ValueError(f"{self}: n_bins and shift are at least 1, a window has at least 2 samples")
        if not 0 <= self.low_hz < self.sample_rate / 2:
            raise ValueError(f"low_hz={self.low_hz} must lie below half of sample_rate={self.sample_rate}")

    @property
    def window(self) -> int:
        """Samples of a window."""
        return int(self.sample_rate * self.window_ms / 1000)

    @property
    def shift(self) -> int:
        """Samples from one window to the next."""
        return int(self.sample_rate * self.shift_ms / 1000)

    def n_frames(self, n_samples: int) -> int:
        """How many whole windows a waveform holds."""
        return max(0, 1 + (n_samples - self.window) // self.shift)

    def __call__(self, waveform: Tensor) -> Tensor:
        """Waveforms float32 (..., n) to float32 (..., n_frames(n), n_bins)."""
        if waveform.shape[-1] < self.window:
            return waveform.new_zeros((*waveform.shape[:-1], 0, self.n_bins))
        flat = waveform.reshape(-1, waveform.shape[-1])
        # A window of which the mean is taken off first and that is then pre-emphasised: what is left of the mean is
        # 0.03 of it, but at the first sample, which the Hann window makes 0.
        emphasised = flat.clone()
        emphasised[:, 1:].sub_(flat[:, :-1], alpha=PREEMPHASIS)
        mean = flat.unfold(-1, self.window, self.shift).mean(dim=-1, keepdim=True)
        found = self._energies(emphasised.unfold(-1, self.window, self.shift), mean)
        return found.clamp_(min=_FLOOR).log_().reshape(*waveform.shape[:-1], -1, self.n_bins)

    def _energies(self, windows: Tensor, mean: Tensor) -> Tensor:
        """Windows float32 (B, n, window), less 0.03 of their means (B, n, 1), to energies float32 (B, n, n_bins)."""
        window, bands = _constants(self, windows.device)
        batch, n, size = *mean.shape[:2], _fft_size(self.window)
        step = n if windows.is_cuda else max(1, _FRAMES // batch)
        frames = windows.new_zeros((batch, min(step, n), size))
        spectra = frames.new_empty((batch, min(step, n), size // 2 + 1), dtype=torch.complex64)
        found = frames.new_empty((batch, n, self.n_bins))
        for first in range(0, n, step):
            now = slice(first, min(first + step, n))
            frame, spectrum = frames[:, : now.stop - first], spectra[:, : now.stop - first]
            torch.sub(windows[:, now], mean[:, now], alpha=1 - PREEMPHASIS, out=frame[..., : self.window]).mul_(window)
            torch.fft.rfft(frame, out=spectrum)
            squares = torch.view_as_real(spectrum).square_().flatten(2)
            torch.cat([squares[..., a:b] @ triangles for a, b, triangles in bands], dim=2, out=found[:, now])
        return found


def _fft_size(window: int) -> int:
    return 1 << (window - 1).bit_length()


@lru_cache(maxsize=16)
def _constants(bank: Fbank, device: torch.device) -> tuple[Tensor, list[tuple[int, int, Tensor]]]:
    """The window, float32 (window,), and the triangles over the spectrum, some neighbours at a time.

    Of these: which squares they need, [first, stop), where the squares of the real and imaginary part of a frequency
    follow each other, and their weights, float32 (stop - first, triangles).
    """
    window = torch.hann_window(bank.window, periodic=False, dtype=torch.float64)
    weights = _triangles(bank).float().repeat_interleave(2, dim=0)
    bands = []
    for at in range(0, weights.shape[1], _NEIGHBOURS):
        some = weights[:, at : at + _NEIGHBOURS]
        rows = some.any(dim=1).nonzero()
        first, stop = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 1)
        bands.append((first, stop, some[first:stop].to(device)))
    return window.float().to(device), bands


def _triangles(bank: Fbank) -> Tensor:
    """Each triangle's weights of the frequencies of the spectrum, float64 (frequencies, n_bins)."""
    size = _fft_size(bank.window)
    hertz = torch.arange(size // 2 + 1, dtype=torch.float64) * bank.sample_rate / size
    edges = torch.linspace(_mel(bank.low_hz), _mel(bank.sample_rate / 2), bank.n_bins + 2, dtype=torch.float64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    mel = 1127.0 * torch.log1p(hertz / 700.0)[:, None]
    triangles = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp_(min=0)
    triangles[-1] = 0  # Kaldi leaves out the highest frequency
    return triangles


def _mel(hertz: float) -> float:
    return float(1127.0 * torch.log1p(torch.tensor(hertz / 700.0, dtype=torch.float64)))


STATISTICS = Fbank()
"""The filterbank whose sums dataset.json of an audio split holds: of the mean of all channels, at 16 kHz."""
SUMS = "fbank"
"""Their name there: how many values, their sum, and the sum of their squares."""


def fbank_statistics(sums: dict[str, list[float]]) -> tuple[float, float]:
    """Mean and deviation over a split, from its dataset.json; ShardError where it has none."""
    values, total, squares = sums.get(SUMS, [0.0, 0.0, 0.0])
    if values < 1:
        raise ShardError(
            "dataset.json of this split says nothing of its filterbank; give statistics=(mean, deviation), or write "
            "the shards again"
        )
    mean = total / values
    return mean, max(squares / values - mean * mean, 1e-12) ** 0.5
