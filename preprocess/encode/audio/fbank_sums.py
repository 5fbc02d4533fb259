"""Sums of audio filterbanks, by which loaders normalise."""

from collections.abc import Iterator
from math import isfinite

import numpy as np
import soxr
import torch

from maskstream.preprocess.source import RejectError
from maskstream.shards.arrays import Float32s, Int32s
from maskstream.shards.media.fbank import STATISTICS, SUMS

_MINUTE = 6000
"""Windows that are processed at a time."""


def compute_fbank_sums(samples: Int32s | Float32s, scale: np.float32, rate: int) -> dict[str, list[float]]:
    """Return the sums `SUMS` of audio: count, sum and sum of squares of its filterbank values, computed on the mean of
    the channels at 16 kHz, without offset.

    Args:
        samples: int32 or float32 (n, channels).
        scale: Factor that converts the samples to full scale 1.
        rate: Sample rate in hertz.

    Raises:
        RejectError: The audio is so loud that its filterbank is not finite.
    """
    mono = samples.mean(axis=1, dtype=np.float32) * scale
    if rate != STATISTICS.sample_rate:
        mono = soxr.resample(mono, rate, STATISTICS.sample_rate, quality="HQ")
    waveform = torch.from_numpy(mono)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the sums must not depend on the machine or the number of processes
    try:
        values = total = squares = 0.0
        for part in _split_minutes(waveform - waveform.mean()):
            bank = STATISTICS(part).double()
            values += bank.numel()
            total += float(bank.sum())
            squares += float(bank.square().sum())
        if not isfinite(squares):
            peak = float(np.abs(mono).max())
            raise RejectError("check", f"has samples up to {peak:.3g} of full scale; its filterbank is not finite")
        return {SUMS: [values, round(total, 3), round(squares, 3)]}
    finally:
        torch.set_num_threads(threads)


def _split_minutes(waveform: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield parts of one minute, which overlap so that together they contain exactly the windows of the whole
    recording.
    """
    bank, frames = STATISTICS, STATISTICS.n_frames(len(waveform))
    for first in range(0, frames, _MINUTE):
        last = min(first + _MINUTE, frames) - 1
        yield waveform[first * bank.shift : last * bank.shift + bank.window]
