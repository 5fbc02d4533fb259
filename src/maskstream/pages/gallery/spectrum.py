"""Spectra of sound as pictures."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskstream.pages.figures.pictures import UInt8

RATE_HZ = 16_000
WINDOW, HOP = 1024, 256

Floats = npt.NDArray[np.floating[Any]]


def spectrum(sound: npt.NDArray[np.float32]) -> Tensor:
    """The complex spectrum (F, T) of mono sound (n,), in Hann windows of 1024 samples every 256."""
    return torch.stft(torch.from_numpy(sound), WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)


def picture(values: Floats, low: float, high: float) -> UInt8:
    """Values (F, T) between `low` and `high` as colours (F, T, 3), low frequencies below."""
    grey = np.rint(255 * np.clip((values - low) / (high - low), 0, 1)).astype(np.uint8)[::-1]
    coloured = cv2.applyColorMap(np.ascontiguousarray(grey), cv2.COLORMAP_VIRIDIS)
    out: UInt8 = np.ascontiguousarray(coloured[..., ::-1]).astype(np.uint8)
    return out
