"""Reads spectrograms of audio of any rate and length like the loader, without maskstream. Model cards contain this code
verbatim.
"""

import os
from collections.abc import Iterable
from math import gcd, log1p
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import torch
from torch import Tensor

RATE = 16000
SAMPLES = 163840
FRAMES = 1024
CHANNELS: int | None = None
START = "center"
SHORT = "zeros"
BINS = 128
WINDOW = 400
SHIFT = 160
LOW_HZ = 20.0
MEAN = 0.0
DEVIATION = 1.0
SCALE = 2.0

Floats: TypeAlias = npt.NDArray[np.float32]


def read_waveform(source: object) -> Floats:
    """Read the segment of a file, or of a pair of float (n,) or (n, channels) and its rate: float32 (up to
    SAMPLES,).
    """
    if isinstance(source, str | os.PathLike):
        sound, rate = soundfile.read(source, dtype="float32", always_2d=True)
    else:
        if not isinstance(source, tuple):
            raise ValueError(f"audio must be a file or a pair of samples and their rate, got a {type(source).__name__}")
        samples, rate = source
        sound = np.asarray(samples, np.float32).reshape(len(samples), -1)
    step, wanted = rate // gcd(rate, RATE), -(-SAMPLES * rate // RATE)
    last = max(len(sound) - wanted, 0) // step
    first = (last // 2 if START == "center" else 0) * step
    stop, margin = min(first + wanted, len(sound)), 0 if rate == RATE else int(0.05 * rate)
    low = max(first - margin, 0)
    sound = sound[low : stop + margin]
    if CHANNELS is None and sound.shape[1] > 1:
        total = sound[:, :1].copy()
        for channel in range(1, sound.shape[1]):
            total += sound[:, channel : channel + 1]
        sound = total * np.float32(1 / sound.shape[1])
    elif CHANNELS is not None and sound.shape[1] < CHANNELS:
        raise ValueError(f"the audio has {sound.shape[1]} channels, fewer than {CHANNELS}")
    mono = np.ascontiguousarray(sound[:, 0])
    if rate == RATE:
        mono = mono[first - low : stop - low]
    else:
        begin = round((first - low) * RATE / rate)
        mono = soxr.resample(mono, rate, RATE, quality="HQ")[begin : begin + -(-(stop - first) * RATE // rate)]
    mono = mono[:SAMPLES]
    return np.resize(mono, SAMPLES) if SHORT == "repeat" else mono


def measure_bands(waveform: Tensor) -> Tensor:
    """Compute Kaldi's filterbank of float32 (n,): log energies float32 (frames, BINS)."""
    size = 1 << (WINDOW - 1).bit_length()
    hertz = torch.arange(size // 2 + 1, dtype=torch.float64) * RATE / size
    low, high = (1127.0 * log1p(edge / 700.0) for edge in (LOW_HZ, RATE / 2))
    edges = torch.linspace(low, high, BINS + 2, dtype=torch.float64)
    mel, left, middle, right = 1127.0 * torch.log1p(hertz / 700.0)[:, None], edges[:-2], edges[1:-1], edges[2:]
    triangles = torch.minimum((mel - left) / (middle - left), (right - mel) / (right - middle)).clamp(min=0)
    triangles[-1] = 0
    emphasised = waveform.clone()
    emphasised[1:].sub_(waveform[:-1], alpha=0.97)
    mean = waveform.unfold(0, WINDOW, SHIFT).mean(dim=1, keepdim=True)
    windows = torch.sub(emphasised.unfold(0, WINDOW, SHIFT), mean, alpha=1 - 0.97)
    hann = torch.hann_window(WINDOW, periodic=False, dtype=torch.float64).float()
    squares = torch.view_as_real(torch.fft.rfft(windows * hann, n=size)).square().flatten(1)
    bands = squares @ triangles.float().repeat_interleave(2, dim=0)
    return bands.clamp(min=torch.finfo(torch.float32).eps).log()


def read_sounds(sources: Iterable[object]) -> Tensor:
    """Read the spectrograms of files, or of pairs of samples and their rate: float32 (B, FRAMES, BINS)."""
    found = []
    for source in sources:
        waveform = torch.from_numpy(read_waveform(source))
        spectrogram = torch.full((FRAMES, BINS), (0.0 - MEAN) / (SCALE * DEVIATION))
        if len(waveform) >= WINDOW:
            bands = (measure_bands(waveform)[:FRAMES] - MEAN) / (SCALE * DEVIATION)
            spectrogram[: len(bands)] = bands
        found.append(spectrogram)
    return torch.stack(found)
