"""Read any video that FFmpeg supports: its facts in one pass over the packets, then its frames, including damaged ones.

A constant frame rate is derived from the time stamps, to which frames are resampled.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain
from math import ceil, inf
from pathlib import Path
from typing import Any, Literal, TypeVar

import av
import numpy as np
from av.buffer import Buffer
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from maskstream.preprocess.encode.limits import check_frame_size, check_frames, get_limits, lasts
from maskstream.preprocess.source import ROUNDING_S, DamageError, RejectError, Span, explain
from maskstream.shards.media.gops import measure_frame_rate
from maskstream.shards.media.local_media import MediaError, find_side_data, open_media

FrameT = TypeVar("FrameT")


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


Damage = Literal["reject", "trim", "keep"]
"""How to treat a damaged video. reject: reject it. trim: end it before its first damaged frame. keep: keep frames as
the decoder conceals the damage, and skip frames that it cannot decode.
"""


@dataclass(slots=True)
class Ending:
    """How the frames of one video end."""

    damage: Damage
    least_whole: float
    n_frames: int = 0
    found: DamageError | None = field(default=None)

    def of(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Yield the frames; with "trim", only those before the first damaged one."""
        try:
            for frame in frames:
                self.n_frames += 1
                yield frame
        except DamageError as error:
            if self.damage != "trim":
                raise
            self.found = error

    def facts(self, n_expected: int) -> dict[str, Any]:
        """Return the facts about damage for `json`; {} if all frames are present.

        Args:
            n_expected: Number of frames that the video should have.

        Raises:
            RejectError: Less than the fraction `least_whole` of the frames is left.
        """
        if self.damage == "reject" or (self.found is None and self.n_frames >= n_expected):
            return {}
        if self.n_frames < self.least_whole * n_expected or not self.n_frames:
            raise self.found or DamageError(
                "decode", f"is truncated or damaged: {self.n_frames} of {n_expected} frames can be read"
            )
        return {"damage": {"n_frames": self.n_frames, "of": max(n_expected, self.n_frames)}}


_TIMED_FORMATS = ("matroska", "flv", "asf", "avi")
"""Containers whose header declares the duration."""

MIN_RATE = Fraction(1, 60)
"""A lower average rate in frames per second means damaged time stamps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFacts:
    """Facts of a source from its packets, without decoding.

    Attributes:
        codec: Name of the codec.
        rate: Constant rate in frames per second, to which a `variable` source is resampled.
        average_rate: Average rate in frames per second.
        variable: Whether the rate varies.
        n_frames: Number of decodable packets that are displayed.
        last_interval: Duration of the last frame in seconds.
        pixel_aspect: Width of a pixel divided by its height; None if square or unknown.
        n_expected: Number of frames that the file declares, or n_frames.
    """

    codec: str
    rate: Fraction
    average_rate: Fraction
    variable: bool
    n_frames: int
    last_interval: Fraction
    pixel_aspect: Fraction | None
    n_expected: int = 0


@contextmanager
def open_video(path: Path, **options: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file; yields the container and its first video stream. Raises RejectError if there is none."""
    try:
        container = open_media(path, **options)
    except MediaError as error:
        raise RejectError("open", str(error)) from error
    except (av.FFmpegError, ValueError) as error:
        raise RejectError("open", f"is not a video that FFmpeg can open, or is truncated ({explain(error)})") from error
    except OSError as error:
        raise RejectError("open", f"cannot be read ({error.strerror})") from error
    with container:
        lasts((container.duration or 0) / av.time_base, container.size)
        yield container, find_first_video(container)


def find_first_video(container: InputContainer) -> VideoStream:
    """Return the first video stream that is not cover art, decoded by one thread. Raise RejectError if there is none,
    or its frames are too large (`Limits`).
    """
    found = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not found:
        others = sorted({s.type for s in container.streams})
        art = "; its only image is cover art" if container.streams.video else ""
        raise RejectError("open", f"has no video stream (its streams: {', '.join(others) or 'none'}{art})")
    stream = found[0]
    if stream.codec_context is None:
        raise RejectError("open", "FFmpeg has no decoder for its video stream")
    check_frame_size(stream.codec_context.width, stream.codec_context.height)
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {
        "max_pixels": str(get_limits().frame_pixels)
    }  # for frames larger than the header says
    return stream


def read_packets(container: InputContainer, *streams: Stream) -> Iterator[Packet[Stream]]:
    """The packets of some streams, with an empty one at the end of each.

    If a stream appears while reading, PyAV raises IndexError after the last packet; this is the normal end.
    """
    try:
        yield from container.demux(*streams)
    except IndexError:
        return


def probe(path: Path, damage: Damage = "reject") -> SourceFacts:
    """The facts of a source from its packets. Raises RejectError if packets are missing or damaged; unless damage is
    "reject", only if there is none.
    """
    with open_video(path) as (container, stream):
        n_expected = len(stream.index_entries) if "mov" in container.format.name else 0
        packets = _Packets(n_expected)
        packets.read(container, stream, container.streams, damage)
        if damage == "reject":
            check_length(container, packets.n_read, n_expected, packets.end_s)
        shown = packets.list_shown()
        if not shown:
            raise RejectError("decode", "has a video stream without frames")
        facts = _facts(stream, shown)
        length_s = 0.0 if container.duration is None else container.duration / av.time_base
        if not (packets.is_broken or packets.n_read < n_expected or packets.end_s < 0.98 * length_s - 0.25):
            return replace(facts, n_expected=len(shown))
        timed = round(length_s * facts.average_rate) if set(_TIMED_FORMATS) & {*container.format.name.split(",")} else 0
        return replace(facts, n_expected=max(len(shown), n_expected, timed, stream.frames))


@dataclass(slots=True)
class _Packets:
    """The packets of a video stream, as far as they were read.

    Attributes:
        n_expected: Number of packets that the file declares; 0 if unknown.
        listed: Time stamp of each packet with data, and whether it is a keyframe, in decoding order.
        hidden: Numbers of those that are not displayed.
        n_read: Number of packets, including those without data.
        end_s: Latest end of a packet of any read stream, in seconds.
        is_broken: Whether a packet is damaged or cannot be read.
        has_end: Whether the last packet was read.
    """

    n_expected: int = 0
    listed: list[tuple[int | None, bool]] = field(default_factory=list)
    hidden: set[int] = field(default_factory=set)
    n_read: int = 0
    end_s: float = 0.0
    is_broken: bool = False
    has_end: bool = True

    def read(
        self,
        container: InputContainer,
        stream: VideoStream,
        streams: Iterable[Stream],
        damage: Damage,
        begin: int | None = None,
        stop: int | None = None,
    ) -> None:
        """Read the packets of `streams`, among them the video `stream`.

        Args:
            container: Open file.
            stream: Video stream.
            streams: Streams to read.
            damage: How to treat damage.
            begin: Time stamp whose keyframe is sought first; if reading from there fails, the list stays
                empty.
            stop: Time stamp at which reading stops.

        Raises:
            RejectError: A packet is damaged, and `damage` is "reject".
        """
        try:
            if begin is not None:
                container.seek(begin, stream=stream, backward=True)
            for packet in read_packets(container, *streams):
                self.end_s = max(self.end_s, _find_end_s(packet))
                if packet.stream_index != stream.index or not (packet.size or _is_repeat(packet)):
                    continue
                if packet.is_corrupt and damage == "reject":
                    raise self._make_error("a packet is incomplete")
                self.is_broken |= packet.is_corrupt
                if stop is not None and packet.size and packet.dts is not None and packet.dts >= stop:
                    self.has_end = False  # all later packets are displayed even later
                    return
                self.n_read += 1
                if packet.is_discard:
                    self.hidden.add(len(self.listed))
                if packet.size:
                    self.listed.append((packet.pts, packet.is_keyframe))
        except av.FFmpegError as error:
            if begin is not None:
                self.listed.clear()
            elif damage == "reject":
                raise self._make_error(explain(error)) from error
            self.is_broken = True

    def _make_error(self, why: str) -> RejectError:
        return RejectError("decode", _explain_truncated(self.n_read, self.n_expected, why))

    def list_shown(self) -> list[int | None]:
        """List the time stamps of the packets that can be decoded and are displayed."""
        return [self.listed[n][0] for n in select_decodable(self.listed) if n not in self.hidden]

    def begins_before(self, begin: int) -> bool:
        """Return whether the first packet is a keyframe displayed at `begin` or earlier."""
        pts, is_keyframe = self.listed[0] if self.listed else (None, False)
        return is_keyframe and pts is not None and pts <= begin


def _find_end_s(packet: Packet[Stream]) -> float:
    """Return the time at which a packet ends, in seconds; 0 if it has no time stamp."""
    time = packet.dts if packet.pts is None else packet.pts
    if time is None or packet.time_base is None:
        return 0.0
    return float((time + (packet.duration or 0)) * packet.time_base)


def check_length(container: InputContainer, n_packets: int, n_expected: int, end_s: float) -> None:
    """Raise RejectError if there are fewer packets than the file's index lists, or they end before its duration.

    Formats with neither (MPEG-TS, GIF) pass.
    """
    if n_packets < n_expected:
        raise RejectError("decode", _explain_truncated(n_packets, n_expected, "the rest is missing"))
    if container.duration is None or not set(_TIMED_FORMATS) & set(container.format.name.split(",")):
        return
    length_s = container.duration / av.time_base
    if end_s < 0.98 * length_s - 0.25:
        raise RejectError(
            "decode", _explain_truncated(n_packets, 0, f"the file ends at {end_s:.2f} of {length_s:.2f} s")
        )


def select_decodable(packets: Sequence[tuple[int | None, bool]]) -> list[int]:
    """The decodable packets of a list of (pts, keyframe) in decoding order, by their positions.

    These are the first keyframe and all packets that are stored and displayed after it, or all packets if no keyframe
    is flagged.
    """
    first = next((n for n, (_, is_keyframe) in enumerate(packets) if is_keyframe), None)
    if first is None:
        return list(range(len(packets)))
    start = packets[first][0]
    return [n for n in range(first, len(packets)) if start is None or (pts := packets[n][0]) is None or pts >= start]


def _facts(stream: VideoStream, pts: list[int | None]) -> SourceFacts:
    declared = stream.average_rate or stream.guessed_rate or stream.base_rate
    known = np.array(sorted(p for p in pts if p is not None), np.int64)
    if len(known) == len(pts) and stream.time_base is not None:
        rate, variable = measure_frame_rate(known, stream.time_base, declared)
        span = Fraction(int(known[-1] - known[0])) * stream.time_base
        average = (len(known) - 1) / span if span else rate
        if average < MIN_RATE:
            raise RejectError("decode", f"has damaged time stamps: {len(known)} frames in {float(span):.0f} s")
        last = Fraction(int(np.median(np.diff(known)))) * stream.time_base if variable else 1 / rate
    else:
        rate = average = declared or Fraction(25)
        variable, last = False, 1 / rate
    return SourceFacts(
        codec=stream.codec_context.codec.canonical_name,
        rate=rate,
        average_rate=average,
        variable=variable,
        n_frames=len(pts),
        last_interval=last,
        pixel_aspect=stream.sample_aspect_ratio or None,
    )


def _explain_truncated(n_read: int, n_expected: int, why: str) -> str:
    of = f" of {n_expected}" if n_expected > 0 else ""
    return f"is truncated or damaged: {n_read}{of} frames can be read, then {why}"


def decode(
    path: Path, damage: Damage = "reject", first: int | None = None, *, seeks: bool = False
) -> Iterator[VideoFrame]:
    """All frames in display order, or those from the time stamp `first` on; decoding begins with the keyframe before it
    if it `seeks` that. Raises DamageError, with the count so far, if a frame is damaged; with "keep", such frames are
    kept as decoded, or left out.
    """
    n_decoded = 0
    with open_video(path) as (container, stream):
        try:
            if seeks and first is not None:
                container.seek(first, stream=stream, backward=True)
            for packet in read_packets(container, stream):
                if _is_repeat(packet):
                    continue
                for frame in _decoded(stream, packet, damage):
                    if first is not None and (frame.pts is None or frame.pts < first):
                        continue  # it may look damaged only because it needs frames before the keyframe
                    if frame.is_corrupt and damage != "keep":
                        raise DamageError(
                            "decode", _explain_truncated(n_decoded, 0, "the decoder flags a frame as damaged")
                        )
                    n_decoded += 1
                    check_frames(n_decoded)
                    yield frame
        except (av.FFmpegError, ValueError) as error:
            if damage == "keep" and n_decoded:
                return  # the rest of the file cannot be read
            raise DamageError("decode", _explain_truncated(n_decoded, 0, explain(error))) from error


def _decoded(stream: VideoStream, packet: Packet[Stream], damage: Damage) -> Sequence[VideoFrame]:
    """Return the frames of a packet; with "keep", none if it cannot be decoded."""
    try:
        return stream.decode(packet)
    except av.FFmpegError:
        if damage != "keep":
            raise
        return ()


def _is_repeat(packet: Packet[Stream]) -> bool:
    """Return whether a packet repeats the frame before it, like Theora's empty packets.

    A decoder would take such a packet for the end. The time stamps of the other packets determine how long each frame
    is displayed.
    """
    return packet.size == 0 and (packet.pts is not None or packet.dts is not None)


def timed(frames: Iterator[VideoFrame], facts: SourceFacts) -> Iterator[tuple[Fraction, VideoFrame]]:
    """Each frame with its start in seconds after the first; at a constant rate the frame's number decides."""
    first: int | None = None
    for n, frame in enumerate(frames):
        if facts.variable and frame.pts is not None and frame.time_base is not None:
            first = frame.pts if first is None else first
            yield Fraction(frame.pts - first) * frame.time_base, frame
        else:
            yield n / facts.rate, frame


def cut_window(frames: Iterator[VideoFrame], window: tuple[int, int] | None) -> Iterator[VideoFrame]:
    """The frames [first, stop) of `window`. Raises RejectError if there are fewer."""
    if window is None:
        yield from frames
        return
    n = 0
    for frame in frames:
        if n >= window[0]:
            yield frame
        n += 1
        if n == window[1]:
            return
    raise RejectError("decode", f"has {n} frames, but the window is frames {window[0]} to {window[1]}")


_SEEKABLE = ("mov", "matroska")


def has_seeking(container: InputContainer) -> bool:
    """Whether a time is found in the container without reading all that is before it."""
    return not {*_SEEKABLE}.isdisjoint(container.format.name.split(","))


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A part of a video.

    Attributes:
        facts: Facts of the part.
        first: Time stamp of its first frame.
        begin: Time stamp from which the first frame is displayed.
        stop: End of the part: no frame has this stamp or a later one.
        window: Numbers of its frames instead, [first, stop), if they have no time stamps.
    """

    facts: SourceFacts
    first: int = 0
    begin: int = 0
    stop: int | None = None
    window: tuple[int, int] | None = None


def open_part(path: Path, span: Span, damage: Damage = "reject") -> tuple[SourceFacts, Iterator[VideoFrame]]:
    """Open a part of a video. For MP4, MOV, Matroska and WebM only the part is read and decoded, from the keyframe
    before it, if that yields the part's first frame.

    The part has the frames that begin in it. At a variable rate it also has the frame that is displayed when it begins,
    from then on.

    Args:
        path: Video file.
        span: Part in seconds.
        damage: How to treat damage.

    Returns:
        The facts of the part, and its frames.

    Raises:
        RejectError: There is no such part, or as for `probe` and `decode`.
    """
    part = _find_timed_part(path, span, damage, seeks=True)
    if part is not None:
        frames = _shown(decode(path, damage, part.first, seeks=True), part)
        try:
            first = next(frames, None)
        except DamageError:
            first = None
        if first is not None and first.pts == part.begin:
            return part.facts, chain([first], frames)
    part = _find_timed_part(path, span, damage, seeks=False)
    assert part is not None
    if part.window is not None:
        return part.facts, cut_window(decode(path, damage), part.window)
    return part.facts, _shown(decode(path, damage, part.first), part)


def _shown(frames: Iterator[VideoFrame], part: Part) -> Iterator[VideoFrame]:
    """Yield the frames of a part, given the frames from its first one on."""
    for frame in frames:
        if frame.pts is not None and part.stop is not None and frame.pts >= part.stop:
            return
        if frame.pts == part.first:
            frame.pts = part.begin
        yield frame


def _find_timed_part(path: Path, span: Span, damage: Damage, *, seeks: bool) -> Part | None:
    """A part by the packets from the keyframe before it on, or from the first one on. None if it `seeks` that keyframe,
    and the container cannot locate it.
    """
    with open_video(path) as (container, stream):
        return found_part(path, container, stream, span, damage, seeks=seeks)


def found_part(
    path: Path, container: InputContainer, stream: VideoStream, span: Span, damage: Damage = "reject", *, seeks: bool
) -> Part | None:
    """The same of an open file, which is newly opened unless it `seeks`."""
    if seeks and not (span.start_s and has_seeking(container)):
        return None
    unit, origin = stream.time_base or Fraction(1, av.time_base), Fraction(container.start_time or 0, av.time_base)
    begin = ceil((origin + Fraction(span.start_s) - ROUNDING_S) / unit)
    stop = None if span.stop_s is None else ceil((origin + Fraction(span.stop_s) - ROUNDING_S) / unit)
    packets = _Packets()
    packets.read(container, stream, [stream], damage, begin if seeks else None, stop)
    if seeks and not packets.begins_before(begin):
        return None
    shown = packets.list_shown()
    if None in shown:
        return None if seeks else _numbered(_facts(stream, shown), span)
    stamps = sorted(pts for pts in packets.list_shown() if pts is not None and (stop is None or pts < stop))
    _check_any(stamps, span)
    facts = _facts(stream, [*stamps])
    if facts.variable:  # a part has the frame rate of the whole file
        facts = probe(path, damage)
    if packets.has_end:
        span.check_end(float(stamps[-1] * unit + facts.last_interval - origin))
    inside = _select_stamps(stamps, begin, ROUNDING_S / unit if facts.variable else inf)
    _check_any(inside, span)
    if facts.variable and not packets.has_end and stop is not None:
        facts = replace(facts, last_interval=(stop - max(inside[-1], begin)) * unit)
    facts = replace(facts, n_frames=len(inside), n_expected=len(inside))
    return Part(facts=facts, first=inside[0], begin=max(inside[0], begin), stop=stop)


def _check_any(frames: Sequence[int], span: Span) -> None:
    """Raise RejectError if a part has no frames."""
    if not frames:
        raise RejectError("check", f"has no frames in the part from {span}")


def _select_stamps(stamps: Sequence[int], begin: int, tolerance: Fraction | float) -> list[int]:
    """Select the ascending time stamps from `begin` on.

    The frame displayed at `begin` comes first if the next one begins more than `tolerance` later.
    """
    at = bisect_left(stamps, begin)
    if at and tolerance < inf and (at == len(stamps) or stamps[at] - begin > tolerance):
        at -= 1
    return list(stamps[at:])


def _numbered(facts: SourceFacts, span: Span) -> Part:
    """The part of a video at a constant rate whose frames have no time stamps."""
    span.check_end(float(facts.n_frames / facts.rate))
    first = max(0, ceil((Fraction(span.start_s) - ROUNDING_S) * facts.rate))
    stop = facts.n_frames
    if span.stop_s is not None:
        stop = min(stop, ceil((Fraction(span.stop_s) - ROUNDING_S) * facts.rate))
    _check_any(range(first, stop), span)
    return Part(facts=replace(facts, n_frames=stop - first, n_expected=stop - first), window=(first, stop))


def orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """A frame's orientation by its display matrix: (transpose, then flip left-right, then flip top-down).

    The matrix maps (x, y) to (a x + c y, b x + d y). Other angles are rounded to the nearest quarter turn.
    """
    raw = find_side_data(frame, Type.DISPLAYMATRIX)
    if not isinstance(raw, Buffer):
        return False, False, False
    a, b, _, c, d, *_ = np.frombuffer(memoryview(raw), np.int32, 9).astype(np.float64)
    transpose = bool(abs(b) + abs(c) > abs(a) + abs(d))
    x_scale, y_scale = (c, b) if transpose else (a, d)
    return transpose, bool(x_scale < 0), bool(y_scale < 0)


def compute_display_size(frame: VideoFrame, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Width and height in square pixels, after rotation."""
    width = max(1, round(frame.width * pixel_aspect)) if pixel_aspect else frame.width
    return (frame.height, width) if orientation(frame)[0] else (width, frame.height)
