"""Fragmented MP4 (ISO 14496-12): muxing one fragment per GOP, and finding where they lie."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer

from ...shards.sample import VideoIndex
from .reject import RejectError

# negative_cts_offsets: the first frame is shown at time 0, so a reader of one fragment knows its times in the video.
_MUXER = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof+negative_cts_offsets+skip_trailer",
    "fflags": "+bitexact",
}


@contextmanager
def mp4_writer(buffer: io.BytesIO) -> Iterator[OutputContainer]:
    """A muxer that starts a fragment at every keyframe and writes nothing that depends on the time or the machine."""
    with av.open(buffer, "w", format="mp4", options=_MUXER) as container:
        yield container


@dataclass(frozen=True, kw_only=True, slots=True)
class Fragments:
    """A fragmented MP4 by its bytes and packets.

    `data` is header and fragments without anything behind them; fragment f is `data[start[f] : start[f + 1]]` (int64,
    one more than there are fragments), `start[0]` is the size of the header. `pts` (int64, sorted) are the frames in
    display order, `fragment` (int64) the fragment that holds each; `key_rank` (int64) is the frame number of each
    fragment's first packet, its keyframe.
    """

    data: bytes
    start: npt.NDArray[np.int64]
    pts: npt.NDArray[np.int64]
    fragment: npt.NDArray[np.int64]
    key_rank: npt.NDArray[np.int64]

    def slice(self, first: int, stop: int) -> bytes:
        """The header and the fragments [first, stop): a valid MP4 of its own."""
        return self.data[: self.start[0]] + self.data[self.start[first] : self.start[stop]]

    def lead(self, fragment: int) -> int:
        """How many frames of `fragment` are displayed before its keyframe."""
        return int(((self.fragment == fragment) & (self.pts < self.pts[self.key_rank[fragment]])).sum())


def boxes(data: bytes) -> Iterator[tuple[str, int, int]]:
    """The top-level boxes as (type, offset, size in bytes); ValueError where one is cut."""
    offset = 0
    while offset < len(data):
        if offset + 8 > len(data):
            raise ValueError(f"a box header is cut at byte {offset}")
        size, kind = struct.unpack_from(">I4s", data, offset)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, offset + 8)
        elif size == 0:
            size = len(data) - offset
        if size < 8 or offset + size > len(data):
            raise ValueError(f"box {kind!r} at byte {offset} says {size} bytes, {len(data) - offset} are left")
        yield kind.decode("latin-1"), offset, size
        offset += size


def parse_fragments(data: bytes) -> Fragments:
    """Where the fragments of `data` lie and which frames they hold; ValueError where it is no fragmented MP4."""
    found = list(boxes(data))
    kinds = [kind for kind, _, _ in found]
    n_fragments = kinds.count("moof")
    stop = 2 + 2 * n_fragments
    if not n_fragments or kinds[:stop] != ["ftyp", "moov"] + ["moof", "mdat"] * n_fragments or "moof" in kinds[stop:]:
        raise ValueError(f"boxes are {' '.join(kinds[:12])} ..., not ftyp moov (moof mdat)*")
    end = found[stop - 1][1] + found[stop - 1][2]
    start = np.array([offset for kind, offset, _ in found if kind == "moof"] + [end], np.int64)
    data = data[:end]
    with av.open(io.BytesIO(data), "r") as container:
        packets = [(p.pts, p.pos) for p in container.demux(container.streams.video[0]) if p.size]
    pts = np.array([p for p, _ in packets], np.int64)
    fragment = np.searchsorted(start, np.array([q for _, q in packets], np.int64), side="right") - 1
    first_packet = np.searchsorted(fragment, np.arange(n_fragments))
    order = np.argsort(pts, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(pts))
    return Fragments(
        data=data, start=start, pts=pts[order], fragment=fragment[order].astype(np.int64), key_rank=rank[first_packet]
    )


def video_index(
    parsed: Fragments, entries: list[int], *, codec: str, fps: float, width: int, height: int
) -> VideoIndex:
    """The index of `parsed` with one GOP for each of `entries`, the fragments at which decoding can begin."""
    starts = np.array(entries, np.int64)
    bounds = parsed.start[np.append(starts, len(parsed.start) - 1)]
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
    )


def parsed_output(data: bytes) -> Fragments:
    """`parse_fragments` of what the muxer wrote; RejectError where it is not as it should be."""
    try:
        parsed = parse_fragments(data)
    except (ValueError, av.FFmpegError) as error:
        raise RejectError("encode", f"the muxed file is no fragmented MP4: {error}") from error
    if len(np.unique(parsed.pts)) != len(parsed.pts) or (np.diff(parsed.key_rank) <= 0).any():
        raise RejectError("encode", "time stamps of the frames repeat or run backwards")
    return parsed
