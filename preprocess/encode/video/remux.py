"""Copies the packets of a source, unchanged, into a fragmented MP4: all of them, or those of a span of time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from maskstream.preprocess.source import RejectError, reason_of

from .fragments import mp4_writer
from .source import decodable, open_video, packets_of


def remuxed(path: Path) -> bytes:
    """The source's packets from the first keyframe on, including those that an edit list hides.

    Decoding times, which some containers lack, are derived from the presentation times. Raises RejectError if MP4
    cannot hold the packets.
    """
    with open_video(path, ignore_editlist="1") as (source, stream):
        return _muxed(stream, _kept(source, stream))


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A part of a video as an MP4 of its own, with the packets from the last keyframe before it up to the first one
    behind it: `n_frames` frames, of which `lead` are shown before it begins.
    """

    data: bytes
    lead: int
    n_frames: int


def cut_out(path: Path, span_s: tuple[float, float]) -> Cut:
    """The part of a source from a time to another, in seconds of its clock. Only that part is read.

    Raises RejectError if there is no such part, or MP4 cannot hold the packets.
    """
    with open_video(path) as (source, stream):
        if stream.time_base is None or not stream.average_rate:
            raise RejectError("open", "has no frame rate or time base, so no part of it can be told by time")
        unit, half = float(stream.time_base), 0.5 / float(stream.average_rate)
        begin, stop = ((second - half) / unit for second in span_s)
        try:
            source.seek(max(0, round(begin)), stream=stream, backward=True)
        except av.FFmpegError as error:
            raise RejectError("decode", f"cannot be read from {span_s[0]:.3f} s on ({reason_of(error)})") from error
        packets: list[Packet[Stream]] = []
        try:
            for packet in packets_of(source, stream):
                if packet.is_keyframe and packet.dts is not None and packet.dts >= stop:
                    break  # all that follow are shown later, and those before have no gaps
                if packet.size:
                    packets.append(packet)
        except av.FFmpegError as error:
            raise RejectError("decode", f"is truncated or damaged ({reason_of(error)})") from error
        until = begin + 2 * half / unit
        keys = [n for n, one in enumerate(packets) if one.is_keyframe and one.pts is not None and one.pts <= until]
        packets = packets[keys[-1] if keys else 0 :]
        packets = [packets[n] for n in decodable([(packet.pts, packet.is_keyframe) for packet in packets])]
        times = [packet.pts for packet in packets if packet.pts is not None]
        if not any(begin <= time < stop for time in times):
            raise RejectError("decode", f"has no frame from {span_s[0]:.3f} to {span_s[1]:.3f} s")
        data = _muxed(stream, packets)
    return Cut(data=data, lead=sum(time < begin for time in times), n_frames=len(times))


def _kept(source: av.container.InputContainer, stream: VideoStream) -> list[Packet[Stream]]:
    try:
        packets = [packet for packet in packets_of(source, stream) if packet.size]
    except (av.FFmpegError, ValueError) as error:
        raise RejectError("encode", f"cannot be muxed as MP4 ({reason_of(error)}); use profile train") from error
    return [packets[n] for n in decodable([(packet.pts, packet.is_keyframe) for packet in packets])]


def _muxed(stream: VideoStream, packets: Sequence[Packet[Stream]]) -> bytes:
    if any(packet.pts is None for packet in packets):
        raise RejectError("encode", "has packets without time stamps; use profile train")
    buffer = io.BytesIO()
    try:
        with mp4_writer(buffer) as container:
            copy = container.add_stream_from_template(stream, opaque=True)
            pts = [packet.pts or 0 for packet in packets]
            delay = max(early - shown for early, shown in zip(sorted(pts), pts, strict=True))
            for packet, dts in zip(packets, sorted(pts), strict=True):
                packet.dts = dts - delay
                packet.stream = copy
                container.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        raise RejectError("encode", f"cannot be muxed as MP4 ({reason_of(error)}); use profile train") from error
    return buffer.getvalue()
