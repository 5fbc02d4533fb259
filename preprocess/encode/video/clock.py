"""When a video begins on its container's clock, which its sound is timed by too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame


def noted(frames: Iterator[VideoFrame], times: list[Fraction | None]) -> Iterator[VideoFrame]:
    """The frames; what each one's time stamp says, in seconds, is added to `times`."""
    for frame in frames:
        known = frame.pts is not None and frame.time_base is not None
        times.append(Fraction(frame.pts or 0) * (frame.time_base or 0) if known else None)
        yield frame


def start_of(times: Sequence[Fraction | None], rate: Fraction | None) -> float | None:
    """The time of the first frame in seconds; None where frames have no time stamps, or such as run backwards (as those
    of H.264 with B-frames in AVI do).

    rate: of frames that come at a constant one, whose stamps may be up to half a frame off each: the first one's time
    is then the median of what all of them say of it. None takes the first stamp.
    """
    stamps = [float(time) for time in times if time is not None]
    if not stamps or len(stamps) < len(times) or stamps != sorted(stamps):
        return None
    if rate is None:
        return stamps[0]
    return float(np.median(np.array(stamps) - np.arange(len(stamps)) / float(rate)))
