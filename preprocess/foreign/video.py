"""Indexes one video: its index, and its table in the packets file.

Decoding starts at entry points: packets from which it gives the same frames as a full decode.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import av
import numpy as np
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from maskstream.preprocess.encode.video.check import frame_digest
from maskstream.preprocess.encode.video.source import orientation_of, packets_of
from maskstream.preprocess.encode.video.timing import frame_rate
from maskstream.preprocess.source import RejectError, reason_of
from maskstream.shards.media.mp4 import DECODERS, Int64Array, Packets, read_header
from maskstream.shards.media.packet_table import table_bytes
from maskstream.shards.media.video_index import VideoIndex
from maskstream.shards.members.video import video_member

from .tar_file import Indexed
from .video_packets import DemuxedVideo, demuxed_video, opened


@dataclass(frozen=True, kw_only=True, slots=True)
class Gops:
    """int64 per GOP: its first packet, its first frame, and its leading frames (stored after its keyframe, shown
    before).
    """

    packet: Int64Array
    first_frame: Int64Array
    lead: Int64Array


def gops_at(packets: Packets, entries: Int64Array) -> Gops:
    """The GOPs that start at the packets `entries`."""
    shown = packets.shown if packets.shown is not None else np.ones_like(packets.keyframe)
    times = np.sort(packets.pts[shown])
    first = np.searchsorted(times, packets.pts[entries])
    before = np.concatenate([[0], np.cumsum(shown)])[entries]
    return Gops(packet=entries, first_frame=first, lead=first - before)


def candidates(packets: Packets, n_frames: int) -> Int64Array:
    """The keyframes whose times allow them to be entry points.

    Every packet stored before such a keyframe is shown before it, every packet shown before it is stored before the
    next keyframe, and its GOP has at least one frame.
    """
    latest = np.maximum.accumulate(packets.pts)
    earliest = np.minimum.accumulate(packets.pts[::-1])[::-1]
    kept: list[int] = []
    for p in np.flatnonzero(packets.keyframe).tolist():
        if p and latest[p - 1] > packets.pts[p]:
            continue
        if not kept or earliest[p] > packets.pts[kept[-1]]:
            kept.append(p)
    entries = np.array(kept, np.int64)
    own = np.diff(gops_at(packets, entries).first_frame, append=n_frames) > 0
    return entries[own]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """A full decode: checksums of the frames from the first keyframe on, in display order, and the frame size."""

    digests: list[bytes]
    width: int
    height: int


def decoded(data: bytes, *, only_first: bool) -> Decoded:
    """Decode the member like a player. Raises RejectError if it is damaged, interlaced, rotated or changes its size."""
    digests: list[bytes] = []
    sizes: set[tuple[int, int]] = set()
    start: int | None = None
    with opened(data) as (container, stream):
        try:
            for packet in packets_of(container, stream):
                if start is None and packet.is_keyframe:
                    start = packet.pts
                for frame in stream.decode(packet):
                    if start is None or frame.pts is None or frame.pts < start:
                        continue
                    _check(frame)
                    sizes.add((frame.width, frame.height))
                    digests.append(frame_digest(frame))
                if digests and only_first:
                    break
        except (av.FFmpegError, ValueError) as error:
            raise RejectError("decode", f"is damaged after {len(digests)} frames ({reason_of(error)})") from error
    if len(sizes) != 1:
        raise RejectError("decode", f"has frames of the sizes {sorted(sizes)}; all frames must have one size")
    ((width, height),) = sizes
    return Decoded(digests=digests, width=width, height=height)


def _check(frame: VideoFrame) -> None:
    if frame.is_corrupt:
        raise RejectError("decode", "the decoder flags a frame as damaged")
    if frame.interlaced_frame or any(orientation_of(frame)):
        what = "interlaced" if frame.interlaced_frame else "rotated by its metadata"
        raise RejectError("decode", f"is {what}, which an index cannot correct; use `maskstream shards folder`")


def exact_entries(data: bytes, video: DemuxedVideo, digests: list[bytes]) -> Int64Array:
    """The candidates from which decoding gives exactly the frames of the full decode.

    The packets of any other candidate join those of the entry point before it, which is checked again. Raises
    RejectError("check") if the first GOP does not decode by itself.
    """
    packets, n_frames = video.packets, len(video.ticks)
    if len(digests) != n_frames:
        raise RejectError("check", f"has {n_frames} packets but {len(digests)} frames, so it cannot be indexed")
    track = read_header(video.header)
    decoder = av.CodecContext.create(DECODERS[track.codec], "r")
    if not isinstance(decoder, VideoCodecContext):
        raise RejectError("check", f"{track.codec} is no video codec")
    decoder.extradata, decoder.thread_count = track.extradata or None, 1
    places = candidates(packets, n_frames).tolist()
    entries: list[int] = []
    for n, place in enumerate(places):
        entries.append(place)
        following = np.array(places[n + 1 : n + 3], np.int64)
        while not _is_exact(data, decoder, packets, entries[-1], following, digests):
            if len(entries) == 1:
                raise RejectError("check", "its first GOP does not decode by itself; use `maskstream shards folder`")
            entries.pop()
    return np.array(entries, np.int64)


def _is_exact(
    data: bytes,
    decoder: VideoCodecContext,
    packets: Packets,
    entry: int,
    following: Int64Array,
    digests: list[bytes],
) -> bool:
    """Whether the frames from `entry` to the next candidate decode exactly; `following` are the next two candidates."""
    gops = gops_at(packets, np.concatenate([[entry], following]))
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
            for frame in decoder.decode(None if i is None else _packet(data, packets, i)):
                if frame.pts is not None and not frame.is_corrupt:
                    found[frame.pts] = frame_digest(frame)
    except av.FFmpegError:
        return False
    finally:
        decoder.flush_buffers()
    return [found.get(int(pts)) for pts in wanted] == digests[first:end]


def _packet(data: bytes, packets: Packets, i: int) -> Packet[Stream]:
    start = int(packets.start[i])
    packet: Packet[Stream] = Packet(data[start : start + int(packets.size[i])])
    packet.pts = int(packets.pts[i])
    return packet


def index_video(data: bytes, *, check: bool = True) -> Indexed:
    """Index the member `data`. With `check`, every entry point is decoded and compared with a full decode.

    Without `check`, the container's keyframes are trusted, and only the first frame is decoded. Raises RejectError if
    the member cannot be indexed.
    """
    video = demuxed_video(data)
    whole = decoded(data, only_first=not check)
    n_frames = len(video.ticks)
    entries = exact_entries(data, video, whole.digests) if check else candidates(video.packets, n_frames)
    index = _index(video, entries, whole.width, whole.height)
    table = video.header + table_bytes(_from(video.packets, int(entries[0])))
    return Indexed(member=replace(video_member(data, index), table=table))


def _index(video: DemuxedVideo, entries: np.ndarray, width: int, height: int) -> VideoIndex:
    packets, gops = video.packets, gops_at(video.packets, entries)
    rate, variable = frame_rate(video.ticks, video.time_base, video.rate)
    if variable:
        rate = (len(video.ticks) - 1) / (int(video.ticks[-1] - video.ticks[0]) * video.time_base)
    bounds = np.append(entries, len(packets.start))
    ends = packets.start + packets.size
    return VideoIndex(
        codec=video.codec,
        fps=float(rate),
        n_frames=len(video.ticks),
        width=width,
        height=height,
        header_size=len(video.header),
        first_frame=gops.first_frame,
        offset=packets.start[entries],
        size=ends[bounds[1:] - 1] - packets.start[entries],
        lead=gops.lead,
        table_offset=0,
        packets=np.diff(bounds),
    )


def _from(packets: Packets, first: int) -> Packets:
    """The packets from `first` on."""
    return replace(
        packets,
        start=packets.start[first:],
        size=packets.size[first:],
        pts=packets.pts[first:],
        keyframe=packets.keyframe[first:],
        shown=None if packets.shown is None else packets.shown[first:],
    )
