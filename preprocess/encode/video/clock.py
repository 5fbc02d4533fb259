"""Finds the time of a video's first frame on the container's clock, which times the sound too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame


def recorded_times(frames: Iterator[VideoFrame], times: list[float | None]) -> Iterator[VideoFrame]:
    """Pass the frames on and append the time stamp of each, in seconds, to `times`."""
    for frame in frames:
        pts, unit = frame.pts, frame.time_base
        times.append(None if pts is None or unit is None else pts * unit.numerator / unit.denominator)
        yield frame


def start_of(times: Sequence[float | None], rate: Fraction | None) -> float | None:
    """The time of the first frame in seconds; None if time stamps are missing or not ascending (H.264 with B-frames in
    AVI).

    rate: the constant frame rate, or None. Stamps at a constant rate may be off by half a frame, so the result is the
    median of the start times that the stamps imply. At a variable rate it is the first stamp.
    """
    stamps = [time for time in times if time is not None]
    if not stamps or len(stamps) < len(times) or stamps != sorted(stamps):
        return None
    if rate is None:
        return stamps[0]
    return float(np.median(np.array(stamps) - np.arange(len(stamps)) / float(rate)))
