"""Kaldi's filterbank, vectorised over any number of waveforms, on the CPU or a GPU.

It is the feature of Audio-MAE and of speech toolkits. It is part of the format because dataset.json contains its sums
over a split, which loaders use for normalisation.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from maskstream.shards.config import Config
from maskstream.shards.errors import ShardError
from maskstream.shards.limits import NaturalFloat, PositiveInt

PREEMPHASIS = 0.97
_FLOOR = torch.finfo(torch.float32).eps
_FRAMES = 256
"""Frames per step on a CPU; few enough to stay in its cache and reuse memory."""
_NEIGHBOURS = 16
"""Triangles per matrix product; each covers few frequencies, which are nearly the same as its neighbours'."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fbank(Config):
    """Log energies in `n_bins` triangular mel filters, of Hann windows of `window_ms` every `shift_ms`.

    Numerically it equals Kaldi's (feature-fbank, htk-compatible, no energy, no dither, only whole windows): the mean of
    each window is subtracted, the window is pre-emphasised by 0.97, and its power spectrum is summed in float32.
    """

    sample_rate: PositiveInt = 16000
    n_bins: PositiveInt = 128
    window_ms: float = 25.0
    shift_ms: float = 10.0
    low_hz: NaturalFloat = 20.0

    def validate(self) -> None:
        if self.shift < 1 or self.window < 2:
            raise ValueError(f"{self}: a shift needs at least 1 sample, a window at least 2")
        if self.low_hz >= self.sample_rate / 2:
            raise ValueError(f"low_hz={self.low_hz} must be below half of sample_rate={self.sample_rate}")

    @property
    def window(self) -> int:
        """Samples per window."""
        return int(self.sample_rate * self.window_ms / 1000)

    @property
    def shift(self) -> int:
        """Samples from one window to the next."""
        return int(self.sample_rate * self.shift_ms / 1000)

    def n_frames(self, n_samples: int) -> int:
        """Return the number of whole windows in a waveform."""
        return max(0, 1 + (n_samples - self.window) // self.shift)

    def __call__(self, waveform: Tensor) -> Tensor:
        """Compute the filterbank float32 (..., n_frames(n), n_bins) of waveforms float32 (..., n)."""
        if waveform.shape[-1] < self.window:
            return waveform.new_zeros((*waveform.shape[:-1], 0, self.n_bins))
        flat = waveform.reshape(-1, waveform.shape[-1])
        # Kaldi subtracts the mean of a window before pre-emphasis. After pre-emphasis that is 0.03 of the mean, except
        # at the first sample, which the Hann window sets to 0.
        emphasised = flat.clone()
        emphasised[:, 1:].sub_(flat[:, :-1], alpha=PREEMPHASIS)
        mean = flat.unfold(-1, self.window, self.shift).mean(dim=-1, keepdim=True)
        found = self._compute_energies(emphasised.unfold(-1, self.window, self.shift), mean)
        return found.clamp_(min=_FLOOR).log_().reshape(*waveform.shape[:-1], -1, self.n_bins)

    def _compute_energies(self, windows: Tensor, mean: Tensor) -> Tensor:
        """Compute energies float32 (B, n, n_bins) of windows float32 (B, n, window), minus 0.03 of their means (B, n,
        1).
        """
        window, bands = _build_constants(self, windows.device)
        batch, n, size = *mean.shape[:2], _choose_fft_size(self.window)
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


def _choose_fft_size(window: int) -> int:
    return 1 << (window - 1).bit_length()


@lru_cache(maxsize=16)
def _build_constants(bank: Fbank, device: torch.device) -> tuple[Tensor, list[tuple[int, int, Tensor]]]:
    """Return the window, float32 (window,), and the triangles in groups of neighbours.

    A group is (first, stop, weights): weights float32 (stop - first, triangles) apply to the squares [first, stop) of
    the spectrum, where the real and the imaginary part of a frequency are neighbours.
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
    """Return the triangles' weights, float64 (frequencies, n_bins)."""
    size = _choose_fft_size(bank.window)
    hertz = torch.arange(size // 2 + 1, dtype=torch.float64) * bank.sample_rate / size
    edges = torch.linspace(
        _convert_to_mel(bank.low_hz), _convert_to_mel(bank.sample_rate / 2), bank.n_bins + 2, dtype=torch.float64
    )
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    mel = 1127.0 * torch.log1p(hertz / 700.0)[:, None]
    triangles = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp_(min=0)
    triangles[-1] = 0  # Kaldi omits the highest frequency
    return triangles


def _convert_to_mel(hertz: float) -> float:
    return float(1127.0 * torch.log1p(torch.tensor(hertz / 700.0, dtype=torch.float64)))


STATISTICS = Fbank()
"""The filterbank whose sums are in dataset.json, for the mean of all channels at 16 kHz."""
SUMS = "fbank"
"""The name of these sums: the count of values, their sum, and the sum of their squares."""


def compute_fbank_statistics(sums: dict[str, list[float]]) -> tuple[float, float]:
    """Return mean and standard deviation over a split, from the sums in dataset.json. Raises ShardError if there are
    none.
    """
    values, total, squares = sums.get(SUMS, [0.0, 0.0, 0.0])
    if values < 1:
        raise ShardError(
            "dataset.json of this split has no filterbank sums; pass statistics=(mean, deviation), or write "
            "the shards again"
        )
    mean = total / values
    return mean, max(squares / values - mean * mean, 1e-12) ** 0.5
