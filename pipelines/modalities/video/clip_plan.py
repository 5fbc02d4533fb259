"""Plan of a clip (frames, crops and byte ranges), and the data read according to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from av.video.frame import VideoFrame

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.cpu import CropPlanes, select_pts
from maskstream.pipelines.flow import ClipFlow, stack_flow
from maskstream.pipelines.flow.base import Flow
from maskstream.pipelines.masks import Draw
from maskstream.pipelines.modalities.rows import Item
from maskstream.shards.arrays import Int64s, UInt8s
from maskstream.shards.errors import DataError
from maskstream.shards.media.gop_notes import GopNotes, gop_notes
from maskstream.shards.media.mp4 import Mp4Error, Packets, read_fragments, read_header
from maskstream.shards.media.video_index import RECORD, VideoIndex, locate_records, name_packets_file, read_table
from maskstream.shards.members.video import find_gop_table_problems
from maskstream.shards.stores.base import Range, Store

from .batch import TokenRoom, ViewTokens

FLOW_CUES = frozenset({"flow", "cuts"})
"""Mask inputs derived from flow."""


class ForTokens(NamedTuple):
    """Decoded frames of a sample, its clips uint8 (views, T, size, size, 3) if something needs whole frames, the
    batch's memory for tokens, and the sample's first row.
    """

    frames: list[VideoFrame]
    clips: UInt8s | None
    room: TokenRoom
    row: int


@dataclass(kw_only=True, slots=True)
class ClipPlan:
    """Frame numbers, int64 (T,), and one crop per view, with results that are added while the clip is filled."""

    video: VideoIndex
    numbers: Int64s
    crops: list[Crop]
    own: tuple[Range, ...]
    """Byte ranges of this camera, as in `clip_ranges`."""
    draws: tuple[Draw, ...]
    """Draws of masks that a device transform computes, one per view."""
    short: bool
    """True if the video has too few frames for the clip."""
    others: tuple[ClipPlan, ...] = ()
    """Plans of the other cameras at the same instants."""
    flows: list[ClipFlow] = field(default_factory=list)
    """Flow of the views once computed; empty without flow."""
    energy: list[Int64s] = field(default_factory=list)
    """Stored energy of the views; empty if no mask reads it."""
    planes: list[CropPlanes] = field(default_factory=list)
    """YUV planes of the views once cropped; empty for other outputs."""
    tokens: list[ViewTokens] = field(default_factory=list)
    """Tokens of the views once converted; empty for other outputs."""
    decoded: ForTokens | None = None
    """Source of the tokens, kept until the masks are known."""

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Byte ranges of all cameras."""
        return (*self.own, *(one for other in self.others for one in other.own))

    @property
    def n_frames(self) -> int:
        """Number of frames in the whole video."""
        return self.video.n_frames

    @property
    def fps(self) -> float:
        """Frames per second of the video."""
        return self.video.fps


class AroundClip:
    """A plan that contains a clip's plan; its fields over time follow the clip (see `fields.OverTime`)."""

    __slots__ = ()
    clip: ClipPlan

    @property
    def numbers(self) -> Int64s:
        """Frame numbers of the clip."""
        return self.clip.numbers

    @property
    def n_frames(self) -> int:
        """Number of frames in the whole video."""
        return self.clip.n_frames

    @property
    def fps(self) -> float:
        """Frames per second of the video."""
        return self.clip.fps


def join_flow(plans: Sequence[ClipPlan]) -> Flow | None:
    """Combine the flow of filled clips into a batch; None without flow."""
    flows = [flow for plan in plans for flow in plan.flows]
    return stack_flow(flows) if flows else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipBytes:
    """Header and fragments that contain a clip."""

    header: bytes
    fragments: bytes
    """Bytes of the fragments, possibly only up to the last packet needed. In foreign tars, the part of the member up to
    the last packet needed.
    """
    first_frame: int
    """Number of the first frame in `fragments`."""
    whole: int
    """Size of the complete fragments in bytes."""
    table: Packets | None = None
    """Packets in `fragments`, for foreign tars."""
    header_known: bool = False
    """True if the header comes from the manifest and was not read."""

    @property
    def packets(self) -> Packets:
        """Parse the packets of the GOPs that contain the clip.

        Raises:
            Mp4Error: The bytes are not such fragments.
        """
        if self.table is not None:
            return self.table
        return read_fragments(memoryview(self.fragments), read_header(self.header), self.whole)

    def notes(self, size: tuple[int, int]) -> GopNotes:
        """Parse the data stored for GOPs with frames of size = (width, height); empty in foreign tars."""
        return GopNotes() if self.table is not None else gop_notes(memoryview(self.fragments), *size, self.whole)

    @property
    def size_bytes(self) -> int:
        """Number of bytes read."""
        return (
            (0 if self.header_known else len(self.header))
            + len(self.fragments)
            + (0 if self.table is None else RECORD.itemsize * len(self.table.start))
        )


def find_indexed_video(item: Item, component: str) -> tuple[VideoIndex, Range]:
    """Return the index of a sample's video and its byte range.

    Raises:
        SampleError: The video is missing or its index is inconsistent.
    """
    manifest, index = item.manifest, item.index
    member = manifest.member(index, component)
    with manifest.reading(index, component):
        video = manifest.video(index, component)
        if not (checked := manifest.components[component].checked)[index]:
            if problem := next(find_gop_table_problems(video, member.size), None):
                raise DataError(problem)
            checked[index] = True
    return video, member


def clip_ranges(video: VideoIndex, numbers: Int64s, member: Range) -> tuple[Range, ...]:
    """Return the byte ranges to read for frames `numbers` of a video in the range `member`.

    These are the fragments that contain the clip, up to its last packet if the manifest stores its end, preceded by the
    header unless the manifest has it, merged if contiguous. In foreign tars: the header, the clip's records in the
    packet table, and its GOPs.
    """
    # A clip needs whole GOPs, from its first frame's to its last frame's. Header, GOPs and packet table have separate
    # offsets, so merge contiguous ones into a single range and request.
    shard, base, _ = member
    first, stop = video.gops_of(numbers)
    begin, end = int(video.offset[first]), video.end_of(numbers, stop)
    span = Range(shard, base + begin, end - begin)
    if video.foreign:
        table = name_packets_file(shard)
        header = Range(table, video.table_offset or 0, video.header_size)
        return header, Range(table, *locate_records(video, first, stop)), span
    if video.header is not None:
        return (span,)
    if begin == video.header_size:
        return (Range(shard, base, end),)
    return Range(shard, base, video.header_size), span


def read_clip(store: Store, video: VideoIndex, numbers: Int64s, ranges: tuple[Range, ...]) -> ClipBytes:
    """Read the header and the GOPs that contain frames `numbers`."""
    if video.foreign:
        return _read_foreign(store, video, numbers, ranges)
    first, stop = video.gops_of(numbers)
    first_frame, whole = int(video.first_frame[first]), int(video.size[first:stop].sum())
    head, *rest = store.read_many(ranges)
    if video.header is not None:
        return ClipBytes(header=video.header, fragments=head, first_frame=first_frame, whole=whole, header_known=True)
    size = video.header_size
    fragments = rest[0] if rest else head[size:]
    return ClipBytes(header=head[:size], fragments=fragments, first_frame=first_frame, whole=whole)


def _read_foreign(store: Store, video: VideoIndex, numbers: Int64s, ranges: tuple[Range, ...]) -> ClipBytes:
    """Read a clip of a foreign tar; the packet table determines the end of the last packet needed."""
    header, records, span = ranges
    first, _ = video.gops_of(numbers)
    begin, first_frame = int(video.offset[first]), int(video.first_frame[first])
    # Packets of a foreign video are interleaved with other tracks, and only the table distinguishes them. Read it first
    # to find the end of the last packet that a requested frame needs.
    head, table = store.read_many((header, records))
    packets = read_table(table, begin)
    last = np.flatnonzero(np.isin(packets.pts, select_pts(packets, first_frame, numbers)))[-1]
    size = int((packets.start[: last + 1] + packets.size[: last + 1]).max())
    if max(size, int(packets.size.sum())) > span.size:
        raise Mp4Error(
            f"the packet table lists {size} bytes for GOPs of {span.size} bytes; run `maskstream index` again"
        )
    data = store.read(span.name, span.offset, size)
    return ClipBytes(header=head, fragments=data, first_frame=first_frame, whole=size, table=packets)
