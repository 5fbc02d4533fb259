"""Find where the scenes of a video begin, by comparing neighbouring frames of a stretch of it.

A hard cut is a position where two neighbours differ, also along DIS flow, and the frame before it does not return
within DISTANCE frames, as it would after a flash: the same measures as in the notes of GOPs (`notes.py`). A scene also
ends where the frame becomes black, and begins where it no longer is; such a fade is distinguished from a cut. A
cross-fade between two scenes is not detected.

All frames are decoded as they would be by an encoder of the scenes, so the clips of a scene can be encoded from the
same frames (`kept.py`).
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Protocol

import av
import cv2
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from maskstream.preprocess.source import RejectError, explain
from maskstream.shards.media.gop_notes import DISTANCE

from .notes import (
    BLACK,
    LEAST_MOVED,
    LEAST_UNMOVED,
    Luma,
    correlate_moved,
    correlate_pictures,
    get_luma_plane,
    halved,
    one_thread,
    shrunk,
)
from .restarts import restart_rule
from .source import has_seeking, open_video, read_packets

CONTEXT_S = 2
"""This much before and after a stretch is decoded too, so that neighbouring stretches use the same frames."""
SUDDEN, ABRUPT = 2.0, 3.0
"""At a cut luma changes more than this many times as much as between the frames around it. In a fade it changes evenly;
pans are never abrupt.
"""
ABRUPTLY_LIKE = 0.8
"""The correlation along DIS flow below which two frames show two scenes, if the change is abrupt."""
_PLANAR = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "gray"})
"""Formats whose first plane is 8-bit luma."""
_LIGHT = (32.0, 5.0)
"""Mean and standard deviation of luma; above one of them a frame is no longer black."""


@dataclass(frozen=True, slots=True)
class SceneStart:
    """Time in seconds, as in `Span`, of the first frame of a scene; whether it is a hard cut, not a fade or the
    beginning of the file; and whether the scene is black.
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
class _Picture:
    """A frame, its time, downscaled versions of it, and the mean and the standard deviation of luma."""

    frame: VideoFrame
    time_s: float
    picture: Luma
    small: Luma
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class _Seen:
    """A frame with its predecessors: the mean change of luma since the previous frame, in levels."""

    shown: _Picture
    change: float


class SceneFrames(Protocol):
    """Receives the frames of a stretch and the starts of scenes, in order."""

    def begin(self, start: SceneStart, *, is_whole: bool) -> None:
        """A scene begins in the stretch with the next frame. is_whole: whether nothing before it was damaged."""
        ...

    def add(self, frame: VideoFrame) -> None:
        """The next frame of the scene."""
        ...

    def leave(self) -> None:
        """The stretch ends before the scene does."""
        ...

    def end(self, last_s: float, *, is_whole: bool) -> None:
        """The file ends after a frame at `last_s`."""
        ...


def find_scenes(
    path: Path, begin_s: float = 0.0, stop_s: float | None = None, frames: SceneFrames | None = None
) -> SceneStarts:
    """Find the scenes of a video that begin in a stretch. Only a few frames are in memory at a time, besides those
    stored by `frames`.

    Args:
        path: Video file.
        begin_s: Start of the stretch in seconds.
        stop_s: End of the stretch; None for the end of the file.
        frames: Receiver of the frames and scenes.

    Raises:
        RejectError: The file cannot be opened.
    """
    starts: list[SceneStart] = []
    last_s: float | None = None
    was_black = False
    with one_thread(), open_video(path) as (container, stream):
        reader = _Reader(container, stream, begin_s, stop_s)
        for earlier, now, later in _pair_neighbours(_read_frames(reader)):
            black = _is_black(now.shown, was=was_black)
            time_s = now.shown.time_s
            if time_s >= begin_s and (stop_s is None or time_s < stop_s):
                last_s = time_s
                hard = bool(earlier) and _is_cut(earlier, now, later)
                if hard or black != was_black or not (earlier or begin_s):
                    starts.append(SceneStart(time_s, hard=hard, black=black))
                    if frames is not None:
                        frames.begin(starts[-1], is_whole=reader.is_whole)
                if frames is not None:
                    frames.add(now.shown.frame)
            elif frames is not None and last_s is not None:
                frames.leave()
            was_black = black
        if frames is not None and stop_s is None and last_s is not None:
            frames.end(last_s, is_whole=reader.is_whole)
    return SceneStarts(tuple(starts), last_s)


def _pair_neighbours(pictures: Iterator[_Seen]) -> Iterator[tuple[list[_Seen], _Seen, list[_Seen]]]:
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
    """Return whether a scene begins with a frame: it changes more than its neighbours do, and neither it nor later
    frames show any content of earlier frames.
    """
    usual = max(_measure_mean_change(earlier[-2:]), _measure_mean_change(later[:2]))
    before = earlier[-1]
    if now.change <= SUDDEN * usual:
        return False
    most = ABRUPTLY_LIKE if now.change > ABRUPT * usual else LEAST_MOVED
    if most == LEAST_MOVED and correlate_pictures(before.shown.small, now.shown.small) >= LEAST_UNMOVED:
        return False
    pairs = (before, now), (before, (later or [now])[-1]), (earlier[0], now)
    return all(correlate_moved(one.shown.picture, other.shown.picture) < most for one, other in pairs)


def _measure_mean_change(frames: list[_Seen]) -> float:
    return sum(one.change for one in frames) / max(len(frames), 1)


def _is_black(shown: _Picture, *, was: bool) -> bool:
    mean, deviation = _LIGHT if was else BLACK
    return shown.mean < mean and shown.deviation < deviation


@dataclass(slots=True)
class _Reader:
    """Decodes a stretch of a video and its surroundings. is_whole: False once it has decoded anything damaged."""

    container: Any
    stream: Any
    begin_s: float
    stop_s: float | None
    is_whole: bool = True

    def pictures(self) -> Iterator[_Picture]:
        """The frames, from CONTEXT_S before the stretch until CONTEXT_S behind it."""
        to_gray, number = VideoReformatter(), 0
        origin = Fraction(self.container.start_time or 0, av.time_base)
        unit = self.stream.time_base or Fraction(1, av.time_base)
        rate = self.stream.average_rate or Fraction(25)
        first_s = self.begin_s - CONTEXT_S
        end_s = float("inf") if self.stop_s is None else self.stop_s + CONTEXT_S
        if first_s > 0 and has_seeking(self.container):
            self._seek(round((origin + Fraction(first_s)) / unit))
        origin_s, unit_s = float(origin), float(unit)
        for frame in self._decoded():
            at = float(number / rate) if frame.pts is None else frame.pts * unit_s - origin_s
            number += 1
            if at < first_s:
                continue
            if at >= end_s:
                return
            shown = frame if frame.format.name in _PLANAR else to_gray.reformat(frame, format="gray", threads=1)
            picture = shrunk(get_luma_plane(shown))
            mean, deviation = cv2.meanStdDev(picture)
            yield _Picture(frame, round(at, 3), picture, halved(picture), float(mean[0, 0]), float(deviation[0, 0]))

    def _seek(self, pts: int) -> None:
        try:
            self.container.seek(pts, stream=self.stream, backward=True)
        except av.FFmpegError as error:
            raise RejectError("decode", f"cannot be read from {pts} onwards ({explain(error)})") from error

    def _decoded(self) -> Iterator[VideoFrame]:
        """Yield the frames from here on. Frames that cannot be decoded are skipped; a read error is the end."""
        may_start = restart_rule(self.stream.codec_context)
        try:
            for packet in read_packets(self.container, self.stream):
                self.is_whole = self.is_whole and not packet.is_corrupt and may_start(packet)
                try:
                    for frame in self.stream.decode(packet):
                        self.is_whole = self.is_whole and not frame.is_corrupt
                        yield frame
                except av.FFmpegError:
                    self.is_whole = False
        except av.FFmpegError:
            self.is_whole = False


def _read_frames(reader: _Reader) -> Iterator[_Seen]:
    """The frames of a stretch and of CONTEXT_S around it, in display order, each with its change."""
    last: Luma | None = None
    for one in reader.pictures():
        change = 0.0
        if last is not None and last.shape == one.small.shape:
            change = cv2.norm(last, one.small, cv2.NORM_L1) / last.size
        yield _Seen(one, change)
        last = one.small
