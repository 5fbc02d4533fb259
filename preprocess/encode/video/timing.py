"""Derives a constant frame rate from time stamps, and resamples frames to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TypeVar

import numpy as np
import numpy.typing as npt

FrameT = TypeVar("FrameT")

_STANDARD = tuple(Fraction(n) for n in (1, 2, 5, 6, 8, 10, 12, 15, 18, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120))
_NTSC = tuple(Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120))
MAX_RATE = Fraction(120)


def frame_rate(pts: npt.NDArray[np.int64], time_base: Fraction, declared: Fraction | None) -> tuple[Fraction, bool]:
    """The constant rate of a video in frames per second, and whether its own rate is variable.

    pts: the sorted time stamps in units of `time_base` (seconds). The rate is constant if every frame is within half a
    frame of its time at `declared` (the container's rate) or at the average rate. For a variable rate, the result is
    the rate of the median interval if that is near the average, else the average; it is rounded to a standard rate, an
    integer or the inverse of an integer, and is at most 120.
    """
    fallback = declared or Fraction(25)
    span = Fraction(int(pts[-1] - pts[0])) * time_base if len(pts) > 1 else Fraction(0)
    if span == 0:
        return fallback, False
    average = (len(pts) - 1) / span
    seconds = (pts - pts[0]).astype(np.float64) * float(time_base)
    for rate in (declared, _nearest_standard(average, 0.001), average.limit_denominator(1001)):
        if rate and np.abs(seconds * float(rate) - np.arange(len(pts))).max() < 0.5:
            return rate, False
    usual = 1 / float(np.median(np.diff(seconds)) or 1 / average)
    wanted = Fraction(usual) if abs(usual / float(average) - 1) < 0.1 else average
    whole = Fraction(round(wanted)) if wanted >= 1 else Fraction(1, round(1 / wanted))
    rounded = _nearest_standard(wanted, 0.01) or whole
    return min(rounded, MAX_RATE), True


def _nearest_standard(rate: Fraction, tolerance: float) -> Fraction | None:
    best = min(_STANDARD + _NTSC, key=lambda r: abs(r / rate - 1))
    return best if abs(best / rate - 1) <= tolerance else None


def resample(timed: Iterable[tuple[Fraction, FrameT]], rate: Fraction, interval: Fraction) -> Iterator[FrameT]:
    """Frames at a constant rate: output k is the last frame that starts at or before k / rate seconds.

    timed: (start in seconds after the first frame, frame) in display order; the last frame lasts `interval` seconds.
    Starts may be late by a quarter of the shorter interval, because containers round time stamps; a video that already
    has this rate is unchanged.
    """
    tolerance = min(interval, 1 / rate) / 4
    k, last, start = 0, None, Fraction(0)
    for start, frame in timed:
        while last is not None and k / rate + tolerance < start:
            yield last
            k += 1
        last = frame
    while last is not None and (k == 0 or k / rate + tolerance < start + interval):
        yield last
        k += 1
