"""Index one video: its index, and its table in the packets file, whose packets FFmpeg's demuxer locates in the tar.

Decoding starts at entry points: packets from which it yields the same frames as a full decode.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from maskstream.preprocess.encode.video.check import hash_frame
from maskstream.preprocess.encode.video.fragments import open_mp4_writer
from maskstream.preprocess.encode.video.source import check_length, find_first_video, orientation, read_packets
from maskstream.preprocess.source import RejectError, explain
from maskstream.shards.arrays import Int64s
from maskstream.shards.media.gops import average_rate, candidates, index_of_packets, list_gops
from maskstream.shards.media.local_media import MediaError, open_media
from maskstream.shards.media.mp4 import DECODERS, Packets, read_header
from maskstream.shards.media.video_index import encode_table
from maskstream.shards.members.video import video_member

from .tar_file import Indexed

_INDEXED = tuple(codec for codec in DECODERS if codec != "ffv1")
_REMEDY = "convert it with `maskstream shards folder`"
_EBML = b"\x1a\x45\xdf\xa3"
_MAX_BLOCK_HEADER = 16
"""FFmpeg reports the position of a Matroska block, which starts with track, time and flags; the packet follows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemuxedVideo:
    """The packets of a video from the first keyframe on, and the header that a decoder needs.

    Attributes:
        codec: FFmpeg's name of the codec.
        header: `ftyp moov` of a fragmented MP4.
        packets: Packets with starts relative to the member and pts from the first shown frame in the header's time
            scale; `shown` is set.
        ticks: The container's pts of the shown frames in display order, in units of `time_base`.
        time_base: Unit of `ticks` in seconds.
        rate: The container's frames per second; None if it declares none.
    """

    codec: str
    header: bytes
    packets: Packets
    ticks: np.ndarray
    time_base: Fraction
    rate: Fraction | None


@contextmanager
def opened(data: bytes) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the container in `data` and its first video stream.

    Args:
        data: Bytes of the member.

    Raises:
        RejectError: This is not an mp4, mov, mkv or webm file with video.
    """
    if not data:
        raise RejectError("open", "is empty (0 bytes)")
    kind = "matroska" if data.startswith(_EBML) else "mov"
    try:
        container = open_media(data, kind)
    except MediaError as error:
        raise RejectError("open", f"is not an mp4, mov, mkv or webm file: it {error}") from error
    except (av.FFmpegError, ValueError) as error:
        raise RejectError(
            "open", f"is not an mp4, mov, mkv or webm file, or is truncated ({explain(error)})"
        ) from error
    with container:
        yield container, find_first_video(container)


def demuxed_video(data: bytes) -> DemuxedVideo:
    """Demux a video.

    Args:
        data: Bytes of the member.

    Raises:
        RejectError: Packets are missing, damaged, or stored in a form that decoders do not take.
    """
    with opened(data) as (container, stream):
        codec = stream.codec_context.codec.canonical_name
        if codec not in _INDEXED:
            raise RejectError("open", f"is {codec}; an index supports {', '.join(_INDEXED)}; {_REMEDY}")
        if codec in ("h264", "hevc") and (stream.codec_context.extradata or b"\0")[0] != 1:
            raise RejectError("open", f"has {codec} without a configuration record; {_REMEDY}")
        header = _make_header(stream)
        table = _build_table(data, container, stream)
        time_base = stream.time_base or Fraction(1, 90000)
        rate = stream.average_rate or stream.guessed_rate
    return _from_table(codec, header, table, time_base, rate)


def _make_header(stream: VideoStream) -> bytes:
    buffer = io.BytesIO()
    try:
        with open_mp4_writer(buffer) as container:
            container.add_stream_from_template(stream, opaque=True)
            container.start_encoding()
    except (av.FFmpegError, ValueError) as error:
        raise RejectError("open", f"has a header that MP4 cannot contain ({explain(error)}); {_REMEDY}") from error
    return buffer.getvalue()


def _build_table(data: bytes, container: InputContainer, stream: VideoStream) -> np.ndarray:
    """Return the packets as int64 (packets, 5): start, size, pts, keyframe, hidden."""
    n_expected = len(stream.index_entries) if "mov" in container.format.name else 0
    rows: list[tuple[int, int, int, bool, bool]] = []
    end_s = 0.0
    try:
        for packet in read_packets(container, *container.streams):
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
        raise RejectError("decode", f"is damaged after {len(rows)} packets ({explain(error)})") from error
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """A full decode: checksums of the frames from the first keyframe on, in display order, and the frame size."""

    digests: list[bytes]
    width: int
    height: int


def decoded(data: bytes, *, only_first: bool) -> Decoded:
    """Decode a member as a player does.

    Args:
        data: Bytes of the member.
        only_first: Stop after the first frame.

    Raises:
        RejectError: The video is damaged, interlaced, rotated or changes its size.
    """
    digests: list[bytes] = []
    sizes: set[tuple[int, int]] = set()
    start: int | None = None
    with opened(data) as (container, stream):
        try:
            for packet in read_packets(container, stream):
                if start is None and packet.is_keyframe:
                    start = packet.pts
                for frame in stream.decode(packet):
                    if start is None or frame.pts is None or frame.pts < start:
                        continue
                    _check(frame)
                    sizes.add((frame.width, frame.height))
                    digests.append(hash_frame(frame))
                if digests and only_first:
                    break
        except (av.FFmpegError, ValueError) as error:
            raise RejectError("decode", f"is damaged after {len(digests)} frames ({explain(error)})") from error
    if len(sizes) != 1:
        raise RejectError("decode", f"has frames of the sizes {sorted(sizes)}; all frames must have one size")
    ((width, height),) = sizes
    return Decoded(digests=digests, width=width, height=height)


def _check(frame: VideoFrame) -> None:
    if frame.is_corrupt:
        raise RejectError("decode", "the decoder flags a frame as damaged")
    if frame.interlaced_frame or any(orientation(frame)):
        what = "interlaced" if frame.interlaced_frame else "rotated by its metadata"
        raise RejectError("decode", f"is {what}, which an index cannot correct; use `maskstream shards folder`")


def find_exact_entries(data: bytes, video: DemuxedVideo, digests: list[bytes]) -> Int64s:
    """Return the candidates from which decoding yields exactly the frames of the full decode.

    The packets of any other candidate join the entry point before it, which is checked again.

    Args:
        data: Bytes of the member.
        video: Its packets.
        digests: Checksums of the frames of the full decode.

    Raises:
        RejectError: The first GOP does not decode on its own.
    """
    packets, n_frames = video.packets, len(video.ticks)
    if len(digests) != n_frames:
        raise RejectError("check", f"has {n_frames} packets but {len(digests)} frames, so it cannot be indexed")
    track = read_header(video.header)
    decoder = av.CodecContext.create(DECODERS[track.codec], "r")
    if not isinstance(decoder, VideoCodecContext):
        raise RejectError("check", f"{track.codec} is not a video codec")
    decoder.extradata, decoder.thread_count = track.extradata or None, 1
    places = candidates(packets, n_frames).tolist()
    entries: list[int] = []
    for n, place in enumerate(places):
        entries.append(place)
        following = np.array(places[n + 1 : n + 3], np.int64)
        while not _is_exact(data, decoder, packets, entries[-1], following, digests):
            if len(entries) == 1:
                raise RejectError("check", "its first GOP does not decode on its own; use `maskstream shards folder`")
            entries.pop()
    return np.array(entries, np.int64)


def _is_exact(
    data: bytes,
    decoder: VideoCodecContext,
    packets: Packets,
    entry: int,
    following: Int64s,
    digests: list[bytes],
) -> bool:
    """Return whether the frames from `entry` to the next candidate decode exactly; `following` are the next two
    candidates.
    """
    gops = list_gops(packets, np.concatenate([[entry], following]))
    ends = [*gops.packet[1:].tolist(), len(packets.pts)]
    leads = [*gops.lead[1:].tolist(), 0]
    stop = ends[1] if leads[0] and len(ends) > 1 else ends[0]
    first, end = int(gops.first_frame[0]), int(gops.first_frame[1]) if len(gops.packet) > 1 else len(digests)
    shown = packets.shown if packets.shown is not None else np.ones_like(packets.keyframe)
    inside = np.arange(entry, stop)
    frames = inside[shown[entry:stop] & (packets.pts[entry:stop] >= packets.pts[entry])]
    wanted = np.sort(packets.pts[frames])[: end - first]
    found: dict[int, bytes] = {}
    try:
        for i in [*inside.tolist(), None]:
            for frame in decoder.decode(None if i is None else _make_packet(data, packets, i)):
                if frame.pts is not None and not frame.is_corrupt:
                    found[frame.pts] = hash_frame(frame)
    except av.FFmpegError:
        return False
    finally:
        decoder.flush_buffers()
    return [found.get(int(pts)) for pts in wanted] == digests[first:end]


def _make_packet(data: bytes, packets: Packets, i: int) -> Packet[Stream]:
    start = int(packets.start[i])
    packet: Packet[Stream] = Packet(data[start : start + int(packets.size[i])])
    packet.pts = int(packets.pts[i])
    return packet


def index_video(data: bytes, *, check: bool = True) -> Indexed:
    """Index a video.

    Args:
        data: Bytes of the member.
        check: Decode every entry point and compare it with a full decode. Otherwise the container's keyframes are
            trusted, and only the first frame is decoded.

    Raises:
        RejectError: The member cannot be indexed.
    """
    video = demuxed_video(data)
    whole = decoded(data, only_first=not check)
    n_frames = len(video.ticks)
    entries = find_exact_entries(data, video, whole.digests) if check else candidates(video.packets, n_frames)
    rate = average_rate(video.ticks, video.time_base, video.rate)
    size = whole.width, whole.height
    index = index_of_packets(video.codec, video.packets, entries, rate, size, len(video.header))
    table = video.header + encode_table(video.packets[int(entries[0]) :])
    return Indexed(member=replace(video_member(data, index), table=table))
