"""Finds where the scenes of a video begin, by comparing neighbouring frames of a stretch of it.

A hard cut is where two neighbours are unlike, also along DIS flow, and the frame before it does not come back within
DISTANCE frames, as after a flash: the same measures as those of the notes in GOPs (`notes.py`). A scene also ends where
the picture becomes black, and begins where it is no longer so; such a fade is told apart from a cut. One scene that is
blended into another is not found.

Where a file can be sought in, frames to which no other refers are passed over at first; they are decoded where what is
around them differs, and around keyframes at which long GOPs end, since encoders put these where scenes begin.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import Any

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
_WINDOW_S = 120.0
_SAME = 0.85
"""The correlation, as they are or along DIS flow, from which on no scene begins between two frames."""
_AROUND, _LONG_GOP = 8, 48
"""So many packets around a keyframe are decoded whole, if so many were between it and the keyframe before."""
_PLANAR = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "gray"})
"""Formats whose first plane is 8-bit luma."""
_LIGHT = (32.0, 5.0)
"""The mean and the standard deviation of luma above one of which a picture is no longer black."""


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
class _Picture:
    """A frame: its time stamp, its time, small pictures of it, and the mean and the standard deviation of luma."""

    pts: int | None
    time_s: float
    picture: Luma
    small: Luma
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class _Seen:
    """A frame after others: the mean change of luma since the frame before, in levels; and whether it and all within
    DISTANCE frames of it were decoded, so that it can be told whether a scene begins with it.
    """

    shown: _Picture
    change: float
    settled: bool = True


def find_scenes(path: Path, begin_s: float = 0.0, stop_s: float | None = None) -> SceneStarts:
    """The scenes of the video at `path` that begin from `begin_s` on and before `stop_s`; None is the end.

    Frames that cannot be decoded are passed over. Small pictures of at most some minutes are in memory at a time.
    Raises RejectError if the file cannot be opened.
    """
    starts: list[SceneStart] = []
    last_s: float | None = None
    with one_thread():
        for first_s, end_s in _windows(path, begin_s, stop_s):
            was_black = False
            for earlier, now, later in _neighbours(_frames(path, first_s, end_s)):
                black = _is_black(now.shown, was=was_black)
                hard = bool(earlier) and now.settled and _is_cut(earlier, now, later)
                time_s = now.shown.time_s
                if first_s <= time_s and (end_s is None or time_s < end_s):
                    last_s = time_s
                    if hard or black != was_black or not (earlier or first_s):
                        starts.append(SceneStart(time_s, hard=hard, black=black))
                was_black = black
    return SceneStarts(tuple(starts), last_s)


def _windows(path: Path, begin_s: float, stop_s: float | None) -> Iterator[tuple[float, float | None]]:
    """Parts of a stretch, of which each is looked at by itself; the stretch itself where nothing can be sought."""
    end_s = stop_s
    with open_video(path) as (container, stream):
        if end_s is None and stream.duration is not None and stream.time_base is not None:
            end_s = float(stream.duration * stream.time_base)
        if not _can_seek(container):
            end_s = None
    while end_s is not None and end_s - begin_s > 2 * _WINDOW_S:
        yield begin_s, begin_s + _WINDOW_S
        begin_s += _WINDOW_S
    yield begin_s, stop_s


def _can_seek(container: Any) -> bool:
    return bool({*SEEKABLE} & {*container.format.name.split(",")})


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
    if most == LEAST_MOVED and likeness(before.shown.small, now.shown.small) >= LEAST_UNMOVED:
        return False
    pairs = (before, now), (before, (later or [now])[-1]), (earlier[0], now)
    return all(moved_likeness(one.shown.picture, other.shown.picture) < most for one, other in pairs)


def _mean_change(frames: list[_Seen]) -> float:
    return sum(one.change for one in frames) / max(len(frames), 1)


def _is_black(shown: _Picture, *, was: bool) -> bool:
    mean, deviation = _LIGHT if was else BLACK
    return shown.mean < mean and shown.deviation < deviation


def _frames(path: Path, begin_s: float, stop_s: float | None) -> Iterator[_Seen]:
    """The frames of a stretch and of CONTEXT_S around it, in display order, without some in which no scene begins."""
    with open_video(path) as (container, stream):
        stream.codec_context.options = {**stream.codec_context.options, "skip_loop_filter": "all"}
        reader = _Reader(container, stream, begin_s, stop_s)
        if not _can_seek(container):
            yield from _changes(reader.pictures())
            return
        if reader.first is not None:
            reader.seek(reader.first)
        try:
            for seen in reader.pictures(sparsely=True):
                reader.found[_known(seen.pts)] = seen
            reader.fill()
        except _NoStampsError:
            reader.seek(reader.first)
            yield from _changes(reader.pictures())
            return
        stamps, settled = sorted(reader.found), reader.settled()
        for pts, one in zip(stamps, _changes(reader.found[pts] for pts in stamps), strict=True):
            yield replace(one, settled=pts in settled)


def _changes(pictures: Iterable[_Picture]) -> Iterator[_Seen]:
    last: Luma | None = None
    for one in pictures:
        change = 0.0
        if last is not None and last.shape == one.small.shape:
            change = cv2.norm(last, one.small, cv2.NORM_L1) / last.size
        yield _Seen(one, change)
        last = one.small


class _NoStampsError(Exception):
    """Packets have no time stamps, by which those that were passed over could be told."""


def _known(pts: int | None) -> int:
    if pts is None:
        raise _NoStampsError
    return pts


@dataclass(slots=True)
class _Reader:
    """Decodes a stretch of a video and what is around it.

    found: what was decoded, by time stamps. asked: the stamps of packets that were decoded whatever refers to them,
    which may be damaged. stamps: those of all packets.
    """

    container: Any
    stream: Any
    begin_s: float
    stop_s: float | None
    found: dict[int, _Picture] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)
    stamps: list[int] = field(default_factory=list)

    @property
    def first(self) -> int | None:
        """The time stamp from which on frames are of use; None is the begin."""
        return self._pts(self.begin_s - CONTEXT_S) if self.begin_s > CONTEXT_S else None

    @property
    def _origin(self) -> Fraction:
        return Fraction(self.container.start_time or 0, av.time_base)

    @property
    def _unit(self) -> Fraction:
        return self.stream.time_base or Fraction(1, av.time_base)

    def _pts(self, time_s: float) -> int:
        return round((self._origin + Fraction(time_s)) / self._unit)

    def seek(self, pts: int | None) -> None:
        """Go to the keyframe before a time stamp, or to the begin."""
        try:
            where = self.stream.start_time or 0 if pts is None else pts
            self.container.seek(where, stream=self.stream, backward=True)
        except av.FFmpegError as error:
            raise RejectError("decode", f"cannot be read from {pts} on ({explain(error)})") from error

    def pictures(self, *, sparsely: bool = False, within: tuple[int, int] | None = None) -> Iterator[_Picture]:
        """The frames from here on. sparsely: those to which others refer, and those around keyframes. within: those
        from one stamp to another.
        """
        to_gray, number = VideoReformatter(), 0
        origin, unit, rate = float(self._origin), float(self._unit), self.stream.average_rate or Fraction(25)
        first_s = self.begin_s - CONTEXT_S
        end_s = float("inf") if self.stop_s is None else self.stop_s + CONTEXT_S
        packets = read_packets(self.container, self.stream)
        if sparsely:
            packets = self._sparse(packets)
        elif within is not None:
            packets = self._within(packets, *within)
        for frame in _decoded(packets, self.stream):
            at = float(number / rate) if frame.pts is None else frame.pts * unit - origin
            number += 1
            if at < first_s or (within is not None and _known(frame.pts) < within[0]):
                continue
            if at >= end_s or (within is not None and _known(frame.pts) > within[1]):
                return
            if frame.format.name not in _PLANAR:
                frame = to_gray.reformat(frame, format="gray", threads=1)
            picture = shrunk(luma_plane(frame))
            mean, deviation = cv2.meanStdDev(picture)
            yield _Picture(frame.pts, round(at, 3), picture, halved(picture), float(mean[0, 0]), float(deviation[0, 0]))

    def _sparse(self, packets: Iterator[Any]) -> Iterator[Any]:
        """The packets, of which the decoder passes over those to which no other refers, but around keyframes and at
        the end."""
        ahead: deque[Any] = deque()
        since, left, ends, keys = 0, 0, 0, 0
        for packet in chain(packets, repeat(None, _AROUND)):
            ahead.append(packet)
            ends += packet is None or not packet.size
            keys += packet is not None and packet.is_keyframe
            if len(ahead) <= _AROUND:
                continue
            now = ahead.popleft()
            if now is None:
                return
            ends -= not now.size
            if now.is_keyframe:
                keys, left, since = keys - 1, (_AROUND if since >= _LONG_GOP else 0), 0
            since, left = since + 1, left - 1
            if now.size:
                self.stamps.append(_known(now.pts))
            self._ask(now, whole=left >= 0 or ends > 0 or (keys > 0 and since >= _LONG_GOP - _AROUND))
            yield now

    def _within(self, packets: Iterator[Any], first: int, last: int) -> Iterator[Any]:
        for packet in packets:
            self._ask(packet, whole=packet.size == 0 or first <= _known(packet.pts) <= last)
            yield packet

    def _ask(self, packet: Any, *, whole: bool) -> None:
        self.stream.codec_context.skip_frame = "DEFAULT" if whole else "NONREF"
        if whole and packet.pts is not None:
            self.asked.add(packet.pts)

    def settled(self) -> set[int]:
        """The stamps of the frames of which all within DISTANCE were decoded, or cannot be."""
        known = self.asked | self.found.keys()
        stamps = self.stamps
        missing = [n for n, pts in enumerate(stamps) if pts not in known]
        near = {n + d for n in missing for d in range(1 - DISTANCE, DISTANCE + 1)}
        return {pts for n, pts in enumerate(stamps) if pts in self.found and n not in near}

    def fill(self) -> None:
        """Decode what was passed over where a scene may begin."""
        first, end = self._pts(self.begin_s - CONTEXT_S), None
        if self.stop_s is not None:
            end = self._pts(self.stop_s + CONTEXT_S)
        self.stamps = sorted({pts for pts in self.stamps if pts >= first and (end is None or pts < end)})
        settled, ranges = self.settled(), list[tuple[int, int]]()
        for before, now in pairwise(sorted(self.found)):
            if now not in settled and _may_differ(self.found[before], self.found[now]):
                low = max(bisect_left(self.stamps, before) - DISTANCE, 0)
                high = min(bisect_left(self.stamps, now) + DISTANCE, len(self.stamps) - 1)
                if ranges and low <= ranges[-1][1] + _AROUND:
                    low = ranges.pop()[0]
                ranges.append((low, high))
        for low, high in ranges:
            span = self.stamps[low], self.stamps[high]
            self.seek(span[0])
            for one in self.pictures(within=span):
                self.found[_known(one.pts)] = one
            self.asked.update(self.stamps[low : high + 1])


def _may_differ(before: _Picture, now: _Picture) -> bool:
    """Whether a scene may begin between two frames, which is so if they are unlike, or it becomes dark."""
    light = [_is_black(one, was=False) + _is_black(one, was=True) for one in (before, now)]
    if light[0] != light[1] or 1 in light or before.picture.shape != now.picture.shape:
        return True
    first, second = before.deviation**2, now.deviation**2
    apart = cv2.norm(before.picture, now.picture, cv2.NORM_L2SQR) / now.picture.size - (before.mean - now.mean) ** 2
    if (first + second - apart) / 2 + 1 >= _SAME * ((first + 1) * (second + 1)) ** 0.5:  # as `likeness` has it
        return False
    return moved_likeness(before.picture, now.picture) < _SAME


def _decoded(packets: Iterator[Any], stream: Any) -> Iterator[VideoFrame]:
    """The frames of packets; those that cannot be decoded are passed over, and what cannot be read is the end."""
    try:
        for packet in packets:
            try:
                yield from stream.decode(packet)
            except av.FFmpegError:
                continue
    except av.FFmpegError:
        return
