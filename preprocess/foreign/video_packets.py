"""Locates the packets of a video in a member of a tar with FFmpeg's demuxer."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from maskstream.preprocess.encode.video.fragments import mp4_writer
from maskstream.preprocess.encode.video.source import check_length, first_video, packets_of
from maskstream.preprocess.source import RejectError, reason_of
from maskstream.shards.media.local_media import MediaError, open_media
from maskstream.shards.media.mp4 import DECODERS, Packets, read_header

_INDEXED = tuple(codec for codec in DECODERS if codec != "ffv1")
_REMEDY = "make shards of it with `maskstream shards folder`"
_EBML = b"\x1a\x45\xdf\xa3"
_MAX_BLOCK_HEADER = 16
"""FFmpeg gives the position of a Matroska block, which starts with track, time and flags; the packet follows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemuxedVideo:
    """The packets of a video from the first keyframe on, and the header that a decoder needs.

    header: `ftyp moov` of a fragmented MP4. packets: starts are relative to the member, pts count from the first shown
    frame in the header's time scale, `shown` is set. ticks: the container's pts of the shown frames in display order,
    in units of `time_base` (seconds). rate: the container's frames per second; None if it declares none.
    """

    codec: str
    header: bytes
    packets: Packets
    ticks: np.ndarray
    time_base: Fraction
    rate: Fraction | None


@contextmanager
def opened(data: bytes) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the container in `data` and its first video stream. Raises RejectError("open") for any other data."""
    if not data:
        raise RejectError("open", "is empty (0 bytes)")
    kind = "matroska" if data.startswith(_EBML) else "mov"
    try:
        container = open_media(data, kind)
    except MediaError as error:
        raise RejectError("open", f"is no mp4, mov, mkv or webm: it {error}") from error
    except (av.FFmpegError, ValueError) as error:
        raise RejectError("open", f"is no mp4, mov, mkv or webm, or is truncated ({reason_of(error)})") from error
    with container:
        yield container, first_video(container)


def demuxed_video(data: bytes) -> DemuxedVideo:
    """Demux a video. Raises RejectError if packets are missing, damaged, or stored in a form that no decoder takes."""
    with opened(data) as (container, stream):
        codec = stream.codec_context.codec.canonical_name
        if codec not in _INDEXED:
            raise RejectError("open", f"is {codec}; an index supports {', '.join(_INDEXED)}; {_REMEDY}")
        if codec in ("h264", "hevc") and (stream.codec_context.extradata or b"\0")[0] != 1:
            raise RejectError("open", f"has {codec} without a configuration record; {_REMEDY}")
        header = _header(stream)
        table = _table(data, container, stream)
        time_base = stream.time_base or Fraction(1, 90000)
        rate = stream.average_rate or stream.guessed_rate
    return _from_table(codec, header, table, time_base, rate)


def _header(stream: VideoStream) -> bytes:
    buffer = io.BytesIO()
    try:
        with mp4_writer(buffer) as container:
            container.add_stream_from_template(stream, opaque=True)
            container.start_encoding()
    except (av.FFmpegError, ValueError) as error:
        raise RejectError("open", f"has no header that MP4 can hold ({reason_of(error)}); {_REMEDY}") from error
    return buffer.getvalue()


def _table(data: bytes, container: InputContainer, stream: VideoStream) -> np.ndarray:
    """The packets as int64 (packets, 5): start, size, pts, keyframe, hidden."""
    n_expected = len(stream.index_entries) if "mov" in container.format.name else 0
    rows: list[tuple[int, int, int, bool, bool]] = []
    end_s = 0.0
    try:
        for packet in packets_of(container, *container.streams):
            if packet.pts is not None and packet.time_base is not None:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index or not packet.size:
                continue
            if packet.is_corrupt:
                raise RejectError("decode", f"is truncated or damaged: {len(rows)} packets can be read")
            if packet.pts is None:
                raise RejectError("decode", f"has packets without time stamps; {_REMEDY}")
            start = _position(data, packet.pos, bytes(packet))
            rows.append((start, packet.size, packet.pts, packet.is_keyframe, packet.is_discard))
    except av.FFmpegError as error:
        raise RejectError("decode", f"is damaged after {len(rows)} packets ({reason_of(error)})") from error
    check_length(container, len(rows), n_expected, end_s)
    return np.array(rows, np.int64).reshape(-1, 5)


def _position(data: bytes, near: int | None, packet: bytes) -> int:
    at = -1 if near is None or near < 0 else data.find(packet, near, near + _MAX_BLOCK_HEADER + len(packet))
    if at < 0:
        raise RejectError("open", f"stores packets in a form that decoders do not take (compressed, laced); {_REMEDY}")
    return at


def _from_table(
    codec: str, header: bytes, table: np.ndarray, time_base: Fraction, rate: Fraction | None
) -> DemuxedVideo:
    keyframes = np.flatnonzero(table[:, 3])
    if not len(keyframes):
        raise RejectError("decode", "has no keyframe, so no frame can be decoded")
    table = table[keyframes[0] :]
    start, size, pts, keyframe, hidden = table.T
    shown = (hidden == 0) & (pts >= pts[0])
    ticks = np.sort(pts[shown])
    if not len(ticks):
        raise RejectError("decode", "has a video stream without frames")
    if len(np.unique(pts)) < len(pts) or (start[1:] < start[:-1] + size[:-1]).any():
        raise RejectError("decode", f"has packets that are out of order or repeated (by an edit list); {_REMEDY}")
    scale = read_header(header).timescale * time_base
    scaled = (pts - ticks[0]) * scale.numerator // scale.denominator
    if len(np.unique(scaled)) < len(scaled):
        raise RejectError("decode", f"has time stamps too fine for the time scale 1/{scale.denominator}; {_REMEDY}")
    packets = Packets(start=start, size=size, pts=scaled, keyframe=keyframe != 0, shown=shown)
    return DemuxedVideo(codec=codec, header=header, packets=packets, ticks=ticks, time_base=time_base, rate=rate)
