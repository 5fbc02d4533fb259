"""What a clip needs of its video: its frames, crops and byte ranges, which are planned, and what is read of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from av.video.frame import VideoFrame

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.cpu import CropPlanes, UInt8Array, select_pts
from maskstream.pipelines.flow import ClipFlow, stack_flow
from maskstream.pipelines.flow.base import Flow
from maskstream.pipelines.masks import Draw
from maskstream.pipelines.modalities.rows import Item
from maskstream.shards.errors import DataError
from maskstream.shards.media.gop_notes import GopNotes, gop_notes
from maskstream.shards.media.mp4 import Mp4Error, Packets, read_fragments, read_header
from maskstream.shards.media.video_index import RECORD, VideoIndex, locate_records, name_packets_file, read_table
from maskstream.shards.members.video import find_gop_table_problems
from maskstream.shards.stores.base import Range, Store

from .batch import TokenRoom, ViewTokens
from .clip import Int64s

FLOW_CUES = frozenset({"flow", "cuts"})
"""What masks may follow of flow."""


class ForTokens(NamedTuple):
    """The decoded frames, the clips uint8 (views, T, size, size, 3) where something needed them whole, the room of the
    batch and the first row of the sample.
    """

    frames: list[VideoFrame]
    clips: UInt8Array | None
    room: TokenRoom
    row: int


@dataclass(kw_only=True, slots=True)
class ClipPlan:
    """Frame numbers, int64 (T,), and one crop per view.

    own: its ranges, as in `clip_ranges`. draws: one per view, of masks that a finish draws. short: whether the video
    has too few frames for the clip. others: those of the same instants of other cameras. flows, energy, planes, tokens:
    those of the views, once they are made; of clips without them none. decoded: what the tokens are made of once the
    masks are known.
    """

    video: VideoIndex
    numbers: Int64s
    crops: list[Crop]
    own: tuple[Range, ...]
    draws: tuple[Draw, ...]
    short: bool
    others: tuple[ClipPlan, ...] = ()
    flows: list[ClipFlow] = field(default_factory=list)
    energy: list[Int64s] = field(default_factory=list)
    planes: list[CropPlanes] = field(default_factory=list)
    tokens: list[ViewTokens] = field(default_factory=list)
    decoded: ForTokens | None = None

    @property
    def ranges(self) -> tuple[Range, ...]:
        """All that is read, of all cameras."""
        return (*self.own, *(one for other in self.others for one in other.own))

    @property
    def n_frames(self) -> int:
        """The number of frames of the whole video."""
        return self.video.n_frames

    @property
    def fps(self) -> float:
        """The frames a second of the video."""
        return self.video.fps


class AroundClip:
    """A plan around that of a clip, whose fields over time are those of the clip (see `fields.OverTime`)."""

    __slots__ = ()
    clip: ClipPlan

    @property
    def numbers(self) -> Int64s:
        """The frame numbers of the clip."""
        return self.clip.numbers

    @property
    def n_frames(self) -> int:
        """The number of frames of the whole video."""
        return self.clip.n_frames

    @property
    def fps(self) -> float:
        """The frames a second of the video."""
        return self.clip.fps


def join_flow(plans: Sequence[ClipPlan]) -> Flow | None:
    """The flow of a batch of filled clips; None without flow."""
    flows = [flow for plan in plans for flow in plan.flows]
    return stack_flow(flows) if flows else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipBytes:
    """The header and the fragments that hold a clip; `first_frame` is the number of their first frame.

    The fragments have `whole` bytes, and `fragments` may end with the last packet needed. header_known: whether the
    header is the manifest's, so it was not read. In foreign tars, `fragments` is a stretch of the member that ends with
    the last packet needed, and `table` lists the packets in it.
    """

    header: bytes
    fragments: bytes
    first_frame: int
    whole: int
    table: Packets | None = None
    header_known: bool = False

    @property
    def packets(self) -> Packets:
        """The packets of the GOPs that hold the clip; raises Mp4Error if the bytes are no such fragments."""
        if self.table is not None:
            return self.table
        return read_fragments(memoryview(self.fragments), read_header(self.header), self.whole)

    def notes(self, size: tuple[int, int]) -> GopNotes:
        """What is stored of GOPs of frames of size = (width, height); nothing in foreign tars."""
        return GopNotes() if self.table is not None else gop_notes(memoryview(self.fragments), *size, self.whole)

    @property
    def size_bytes(self) -> int:
        """The number of bytes read."""
        return (
            (0 if self.header_known else len(self.header))
            + len(self.fragments)
            + (0 if self.table is None else RECORD.itemsize * len(self.table.start))
        )


def find_indexed_video(item: Item, component: str) -> tuple[VideoIndex, Range]:
    """The index of a sample's video, and where its bytes are; SampleError if it is missing or contradicts itself."""
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
    """The byte ranges to read for the frames `numbers` of a video in the range `member`.

    They are the fragments that hold the clip, up to its last packet where the manifest has its end, after the header if
    the manifest does not have it, in one range if they are contiguous. In foreign tars: the header, the clip's records
    of the packet table, and its GOPs.
    """
    # A clip needs whole GOPs: from the GOP of its first frame to that of its last one. Header, GOPs and packet table
    # have offsets of their own, so what is contiguous in the tar becomes one range, and one request.
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
    """Reads the header and the GOPs that hold the frames `numbers` from their ranges."""
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
    """Reads a clip of a foreign tar; the packet table gives the end of the last packet needed."""
    header, records, span = ranges
    first, _ = video.gops_of(numbers)
    begin, first_frame = int(video.offset[first]), int(video.first_frame[first])
    # The packets of a foreign video lie among those of other tracks, and only the table tells them apart. It is read
    # first; the last packet that a wanted frame needs says where reading may stop.
    head, table = store.read_many((header, records))
    packets = read_table(table, begin)
    last = np.flatnonzero(np.isin(packets.pts, select_pts(packets, first_frame, numbers)))[-1]
    size = int((packets.start[: last + 1] + packets.size[: last + 1]).max())
    if max(size, int(packets.size.sum())) > span.size:
        raise Mp4Error(
            f"the packet table names {size} bytes of GOPs of {span.size} bytes; run `maskstream index` again"
        )
    data = store.read(span.name, span.offset, size)
    return ClipBytes(header=head, fragments=data, first_frame=first_frame, whole=size, table=packets)
