"""Finds where the scenes of a video begin, by comparing all neighbouring frames of a stretch of it.

A hard cut is where two neighbours are unlike, also along DIS flow, and the frame before it does not come back within
DISTANCE frames, as after a flash: the same measures as those of the notes in GOPs (`notes.py`). A scene also ends where
the picture becomes black, and begins where it is no longer so; such a fade is told apart from a cut. One scene that is
blended into another is not found.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import av
import cv2
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from maskstream.preprocess.source import RejectError, explain
from maskstream.shards.media.gop_notes import DISTANCE

from .notes import (
    LEAST_MOVED,
    LEAST_UNMOVED,
    Luma,
    halved,
    likeness,
    luma_plane,
    moved_likeness,
    one_thread,
    shrunk,
)
from .source import SEEKABLE, open_video, read_packets

CONTEXT_S = 2
"""So much before and behind a stretch is decoded too, so that neighbouring stretches see the same frames."""
SUDDEN, ABRUPT = 2.0, 3.0
"""At a cut luma changes more than so many times as much as between the frames around it. In a fade it changes evenly;
pans are abrupt at no frame.
"""
ABRUPTLY_LIKE = 0.8
"""The correlation along DIS flow below which two frames show two scenes, if the change is abrupt."""
_PLANAR = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "gray"})
"""Formats whose first plane is 8-bit luma."""
_BLACK, _LIGHT = (24.0, 2.0), (32.0, 5.0)
"""The mean and the standard deviation of luma below which a picture turns black, and above one of which it no longer
is. Limited range has black at 16.
"""


@dataclass(frozen=True, slots=True)
class SceneStart:
    """The time in seconds, as `Span` counts, of the first frame of a scene; whether it is a hard cut, not a fade or the
    begin of the file; and whether the scene is black.
    """

    time_s: float
    hard: bool
    black: bool


@dataclass(frozen=True, slots=True)
class SceneStarts:
    """The scenes that begin in a stretch, and when its last frame begins; None if no frame could be decoded."""

    starts: tuple[SceneStart, ...]
    last_s: float | None


@dataclass(frozen=True, slots=True)
class _Seen:
    """A frame: its time, small pictures of it, and the mean change of luma since the frame before, in levels."""

    time_s: float
    picture: Luma
    small: Luma
    change: float


def find_scenes(path: Path, begin_s: float = 0.0, stop_s: float | None = None) -> SceneStarts:
    """The scenes of the video at `path` that begin from `begin_s` on and before `stop_s`; None is the end.

    Frames that cannot be decoded are passed over. Some small pictures are in memory at a time. Raises RejectError if
    the file cannot be opened.
    """
    starts: list[SceneStart] = []
    last_s: float | None = None
    was_black = False
    with one_thread():
        for earlier, now, later in _neighbours(_pictures(path, begin_s, stop_s)):
            black = _is_black(now.picture, was=was_black)
            hard = bool(earlier) and _is_cut(earlier, now, later)
            if begin_s <= now.time_s and (stop_s is None or now.time_s < stop_s):
                last_s = now.time_s
                if hard or black != was_black or not (earlier or begin_s):
                    starts.append(SceneStart(now.time_s, hard=hard, black=black))
            was_black = black
    return SceneStarts(tuple(starts), last_s)


def _neighbours(pictures: Iterator[_Seen]) -> Iterator[tuple[list[_Seen], _Seen, list[_Seen]]]:
    """Each frame with up to DISTANCE before it, and fewer behind it."""
    earlier: deque[_Seen] = deque(maxlen=DISTANCE)
    ahead: deque[_Seen] = deque()
    for seen in chain(pictures, repeat(None, DISTANCE - 1)):
        if seen is not None:
            ahead.append(seen)
        if len(ahead) == DISTANCE or (seen is None and ahead):
            now = ahead.popleft()
            yield [*earlier], now, [*ahead]
            earlier.append(now)


def _is_cut(earlier: list[_Seen], now: _Seen, later: list[_Seen]) -> bool:
    """Whether a scene begins with a frame: it changes more than its neighbours do, and shows nothing of those before,
    nor does what follows.
    """
    usual = max(_mean_change(earlier[-2:]), _mean_change(later[:2]))
    before = earlier[-1]
    if now.change <= SUDDEN * usual:
        return False
    most = ABRUPTLY_LIKE if now.change > ABRUPT * usual else LEAST_MOVED
    if most == LEAST_MOVED and likeness(before.small, now.small) >= LEAST_UNMOVED:
        return False
    pairs = (before, now), (before, (later or [now])[-1]), (earlier[0], now)
    return all(moved_likeness(one.picture, other.picture) < most for one, other in pairs)


def _mean_change(frames: list[_Seen]) -> float:
    return sum(one.change for one in frames) / max(len(frames), 1)


def _is_black(picture: Luma, *, was: bool) -> bool:
    mean, deviation = _LIGHT if was else _BLACK
    return bool(picture.mean() < mean and picture.std() < deviation)


def _pictures(path: Path, begin_s: float, stop_s: float | None) -> Iterator[_Seen]:
    """The frames of a stretch and of CONTEXT_S around it, small, in display order."""
    with open_video(path) as (container, stream):
        stream.codec_context.options = {**stream.codec_context.options, "skip_loop_filter": "all"}
        origin = Fraction(container.start_time or 0, av.time_base)
        to_gray = VideoReformatter()
        first_s = begin_s - CONTEXT_S
        if first_s > 0 and {*SEEKABLE} & {*container.format.name.split(",")}:
            unit = stream.time_base or Fraction(1, av.time_base)
            try:
                container.seek(round((origin + Fraction(first_s)) / unit), stream=stream, backward=True)
            except av.FFmpegError as error:
                raise RejectError("decode", f"cannot be read from {first_s:.0f} s on ({explain(error)})") from error
        rate = stream.average_rate or Fraction(25)
        number, last = 0, None
        for frame in _decoded(container, stream):
            at = number / rate
            if frame.pts is not None and frame.time_base is not None:
                at = frame.pts * frame.time_base - origin
            number += 1
            if at < first_s:
                continue
            if stop_s is not None and at >= stop_s + CONTEXT_S:
                return
            if frame.format.name not in _PLANAR:
                frame = to_gray.reformat(frame, format="gray", threads=1)
            picture = shrunk(luma_plane(frame))
            small = halved(picture)
            change = 0.0 if last is None or last.shape != small.shape else float(cv2.absdiff(last, small).mean())
            yield _Seen(round(float(at), 3), picture, small, change)
            last = small


def _decoded(container: Any, stream: Any) -> Iterator[VideoFrame]:
    """The frames from here on; packets that cannot be decoded are passed over, and what cannot be read is the end."""
    try:
        for packet in read_packets(container, stream):
            try:
                yield from stream.decode(packet)
            except av.FFmpegError:
                continue
    except av.FFmpegError:
        return
