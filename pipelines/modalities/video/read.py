"""Where the bytes of a clip lie, and reading them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.decode.packets import wanted_pts
from maskstream.shards.media.gop_notes import GopNotes, gop_notes
from maskstream.shards.media.mp4 import Mp4Error, Packets, read_fragments, read_header
from maskstream.shards.media.packet_table import RECORD, packets_name, read_table, records_of
from maskstream.shards.media.video_index import VideoIndex
from maskstream.shards.stores.base import Range, Store

Int64s = npt.NDArray[np.int64]


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
        table = packets_name(shard)
        header = Range(table, video.table_offset or 0, video.header_size)
        return header, Range(table, *records_of(video, first, stop)), span
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
    last = np.flatnonzero(np.isin(packets.pts, wanted_pts(packets, first_frame, numbers)))[-1]
    size = int((packets.start[: last + 1] + packets.size[: last + 1]).max())
    if max(size, int(packets.size.sum())) > span.size:
        raise Mp4Error(
            f"the packet table names {size} bytes of GOPs of {span.size} bytes; run `maskstream index` again"
        )
    data = store.read(span.name, span.offset, size)
    return ClipBytes(header=head, fragments=data, first_frame=first_frame, whole=size, table=packets)
