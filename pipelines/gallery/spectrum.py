"""Spectra of sound: what the gallery draws of it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..preview.pictures import UInt8

RATE_HZ = 16_000
WINDOW, HOP, FFT = 400, 160, 512
"""25 ms every 10 ms, as Audio-MAE has it."""

Floats = npt.NDArray[np.floating[Any]]


def spectrum(sound: npt.NDArray[np.float32], *, fft: int = FFT, window: int = WINDOW, hop: int = HOP) -> Tensor:
    """The complex spectrum (F, T) of mono sound (n,)."""
    return torch.stft(
        torch.from_numpy(sound), fft, hop, window, torch.hann_window(window), return_complex=True, center=True
    )


def log_mel(sound: npt.NDArray[np.float32], bins: int = 128) -> Floats:
    """The logarithm of the energy in `bins` mel bands: (T, bins)."""
    power = spectrum(sound).abs().square().numpy()
    return np.log(mel_bands(bins, power.shape[0]) @ power + 1e-7).T


@lru_cache(maxsize=4)
def mel_bands(bins: int, frequencies: int) -> Floats:
    """Triangles that overlap by half, evenly spaced in mel up to half the rate: (bins, frequencies)."""
    top = 2595 * np.log10(1 + RATE_HZ / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bins + 2) / 2595) - 1)
    places = np.linspace(0, RATE_HZ / 2, frequencies)
    rising = (places - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - places) / np.diff(edges)[1:, None]
    return np.maximum(np.minimum(rising, falling), 0.0)


def picture(values: Floats, low: float, high: float) -> UInt8:
    """Values (F, T) between `low` and `high` as colours (F, T, 3), low frequencies below."""
    grey = np.rint(255 * np.clip((values - low) / (high - low), 0, 1)).astype(np.uint8)[::-1]
    return np.ascontiguousarray(cv2.applyColorMap(np.ascontiguousarray(grey), cv2.COLORMAP_VIRIDIS)[..., ::-1])
