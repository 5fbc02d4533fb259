"""Writes fragmented MP4 with one fragment per GOP, of new packets or a source's, and finds each frame's fragment."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from maskstream.preprocess.source import RejectError, explain
from maskstream.shards.arrays import Int64s
from maskstream.shards.media.mp4 import boxes, read_fragments, read_header
from maskstream.shards.media.video_index import VideoIndex, measure_anchor_reach

from .source import open_video, read_packets, select_decodable

# negative_cts_offsets puts the first frame at time 0, so a reader of one fragment knows its times in the video.
_FLAGS = "frag_keyframe+empty_moov+default_base_moof+negative_cts_offsets+skip_trailer"
_MUXER = {"movflags": _FLAGS, "fflags": "+bitexact"}


@contextmanager
def open_mp4_writer(buffer: io.BytesIO) -> Iterator[OutputContainer]:
    """A muxer that starts a fragment at every keyframe; its output does not depend on the time or the machine."""
    with av.open(buffer, "w", format="mp4", options=_MUXER) as container:
        yield container


@dataclass(frozen=True, kw_only=True, slots=True)
class Fragments:
    """A fragmented MP4 and its frames.

    data: the header and the fragments. start: int64 (fragments + 1); fragment f is
    `data[start[f] : start[f + 1]]`, and `start[0]` is the size of the header. pts: int64, sorted; the frames' times in
    the track's time scale. fragment: int64; the fragment of each frame. key_rank: int64; the frame number of each
    fragment's first packet, its keyframe.

    The times are those stored in the file and start at 0. FFmpeg's demuxer shifts them by an offset that differs
    between slices, so frames of a slice are identified by their order from its keyframe.
    """

    data: bytes
    start: Int64s
    pts: Int64s
    fragment: Int64s
    key_rank: Int64s

    def slice(self, first: int, stop: int) -> bytes:
        """The header and the fragments [first, stop), which are a valid MP4."""
        return self.data[: self.start[0]] + self.data[self.start[first] : self.start[stop]]

    def lead(self, fragment: int) -> int:
        """How many frames of `fragment` are displayed before its keyframe."""
        return int((self.fragment[: self.key_rank[fragment]] == fragment).sum())


def parse_fragments(data: bytes) -> Fragments:
    """Locate the fragments of `data` and their frames. Raise ValueError if it is not a fragmented MP4."""
    view = memoryview(data)
    found = [(kind.decode("latin-1"), start, payload, end) for kind, start, payload, end in boxes(view, 0, len(data))]
    kinds = [kind for kind, *_ in found if kind != "uuid"]
    n_fragments = kinds.count("moof")
    stop = 2 + 2 * n_fragments
    if not n_fragments or kinds[:stop] != ["ftyp", "moov"] + ["moof", "mdat"] * n_fragments:
        raise ValueError(f"has the boxes {' '.join(kinds[:12])} ..., expected ftyp moov (moof mdat)*")
    starts = [start for kind, start, _, _ in found if kind == "moof"]
    last_byte = [end for kind, _, _, end in found if kind == "mdat"][n_fragments - 1]
    track = read_header(data[: starts[0]])
    times = [
        read_fragments(view[start:end], track).pts for start, end in zip(starts, [*starts[1:], last_byte], strict=True)
    ]
    counts = np.array([len(shown) for shown in times], np.int64)
    pts = np.concatenate(times)
    order = np.argsort(pts, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(pts))
    return Fragments(
        data=data[:last_byte],
        start=np.array([*starts, last_byte], np.int64),
        pts=pts[order],
        fragment=np.repeat(np.arange(n_fragments), counts)[order],
        key_rank=rank[np.cumsum(counts) - counts],
    )


def parse_output(data: bytes) -> Fragments:
    """`parse_fragments` of the muxer's output. Raises RejectError if time stamps repeat or run backwards."""
    try:
        parsed = parse_fragments(data)
    except ValueError as error:
        raise RejectError("encode", f"the muxed file is not a fragmented MP4: {error}") from error
    if (np.diff(parsed.pts) <= 0).any() or (np.diff(parsed.key_rank) <= 0).any():
        raise RejectError("encode", "time stamps of the frames repeat or run backwards")
    return parsed


def build_video_index(
    parsed: Fragments, entries: list[int], *, codec: str, fps: float, width: int, height: int, anchored: bool = False
) -> VideoIndex:
    """Return the index of `parsed` with one GOP per entry point.

    Args:
        parsed: Fragments of the video.
        entries: Fragments from which decoding can start.
        codec: Name of the codec.
        fps: Frames per second.
        width: Width in pixels.
        height: Height in pixels.
        anchored: Whether the GOPs are closed and every 4th frame is an anchor, so that the ends of the anchors are
            stored.
    """
    starts = np.array(entries, np.int64)
    bounds = parsed.start[np.append(starts, len(parsed.start) - 1)]
    track, view = read_header(parsed.data[: parsed.start[0]]), memoryview(parsed.data)
    reach = None
    if anchored:
        gops = (read_fragments(view[a:b], track) for a, b in pairwise(bounds.tolist()))
        reach = measure_anchor_reach(gops, np.diff(bounds))
    return VideoIndex(
        codec=codec,
        fps=fps,
        n_frames=len(parsed.pts),
        width=width,
        height=height,
        header_size=int(parsed.start[0]),
        first_frame=parsed.key_rank[starts],
        offset=bounds[:-1],
        size=np.diff(bounds),
        lead=np.array([parsed.lead(f) for f in entries], np.int64),
        header=parsed.data[: parsed.start[0]],
        anchor_reach=reach,
    )


def remux(path: Path) -> bytes:
    """The source's packets from the first keyframe on, including those that an edit list hides.

    Decoding times, which some containers lack, are derived from the presentation times. Raises RejectError if MP4
    cannot contain the packets.
    """
    with open_video(path, ignore_editlist="1") as (source, stream):
        return _mux_packets(stream, _kept(source, stream))


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A part of a video as a separate MP4, with the packets from the last keyframe before it up to the first keyframe
    after it: `n_frames` frames, including `lead` frames displayed before the part begins.
    """

    data: bytes
    lead: int
    n_frames: int


def cut_out(path: Path, span_s: tuple[float, float]) -> Cut:
    """Cut a part out of a source. Only that part is read.

    Args:
        path: Video file.
        span_s: Start and end in seconds of its clock.

    Raises:
        RejectError: There is no such part, or MP4 cannot contain the packets.
    """
    with open_video(path) as (source, stream):
        if stream.time_base is None or not stream.average_rate:
            raise RejectError("open", "has no frame rate or time base, so parts cannot be located by time")
        unit, half = float(stream.time_base), 0.5 / float(stream.average_rate)
        begin, stop = ((second - half) / unit for second in span_s)
        try:
            source.seek(max(0, round(begin)), stream=stream, backward=True)
        except av.FFmpegError as error:
            raise RejectError("decode", f"cannot be read from {span_s[0]:.3f} s onwards ({explain(error)})") from error
        packets = _trim(_read_until(source, stream, stop), begin + 2 * half / unit, stop)
        times = [packet.pts for packet in packets if packet.pts is not None]
        if not any(begin <= time < stop for time in times):
            raise RejectError("decode", f"has no frame from {span_s[0]:.3f} to {span_s[1]:.3f} s")
        data = _mux_packets(stream, packets)
    return Cut(data=data, lead=sum(time < begin for time in times), n_frames=len(times))


def _read_until(source: av.container.InputContainer, stream: VideoStream, stop: float) -> list[Packet[Stream]]:
    packets: list[Packet[Stream]] = []
    try:
        for packet in read_packets(source, stream):
            if packet.is_keyframe and packet.dts is not None and packet.dts >= stop:
                break  # all later packets are displayed later, and the earlier ones are complete
            if packet.size:
                packets.append(packet)
    except av.FFmpegError as error:
        raise RejectError("decode", f"is truncated or damaged ({explain(error)})") from error
    return packets


def _trim(packets: list[Packet[Stream]], begin: float, stop: float) -> list[Packet[Stream]]:
    """Keep the packets from the last keyframe up to `begin` to the first keyframe after all frames before `stop`."""
    keys = [n for n, one in enumerate(packets) if one.is_keyframe and one.pts is not None and one.pts <= begin]
    packets = packets[keys[-1] if keys else 0 :]
    packets = [packets[n] for n in select_decodable([(packet.pts, packet.is_keyframe) for packet in packets])]
    # With B-frames a keyframe is stored before it is displayed: drop one displayed after the part and all that follow.
    last = max((n for n, one in enumerate(packets) if one.pts is not None and one.pts < stop), default=-1)
    later = [n for n, one in enumerate(packets) if one.is_keyframe and n > last >= 0]
    return packets[: later[0]] if later else packets


def _kept(source: av.container.InputContainer, stream: VideoStream) -> list[Packet[Stream]]:
    try:
        packets = [packet for packet in read_packets(source, stream) if packet.size]
    except (av.FFmpegError, ValueError) as error:
        raise RejectError("encode", f"cannot be muxed as MP4 ({explain(error)}); use profile train") from error
    return [packets[n] for n in select_decodable([(packet.pts, packet.is_keyframe) for packet in packets])]


def _mux_packets(stream: VideoStream, packets: Sequence[Packet[Stream]]) -> bytes:
    if any(packet.pts is None for packet in packets):
        raise RejectError("encode", "has packets without time stamps; use profile train")
    buffer = io.BytesIO()
    try:
        with open_mp4_writer(buffer) as container:
            copy = container.add_stream_from_template(stream, opaque=True)
            pts = [packet.pts or 0 for packet in packets]
            delay = max(early - shown for early, shown in zip(sorted(pts), pts, strict=True))
            for packet, dts in zip(packets, sorted(pts), strict=True):
                packet.dts = dts - delay
                packet.stream = copy
                container.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        raise RejectError("encode", f"cannot be muxed as MP4 ({explain(error)}); use profile train") from error
    return buffer.getvalue()
