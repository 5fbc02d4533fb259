"""The index of a video, which maps frames to bytes of its member, and the packet tables of videos in foreign tars.

The packet tables of a foreign tar NAME.tar are stored in `NAME.packets`, each at its video's fact `table_offset`. A
table is a header (`ftyp moov` of a fragmented MP4, whatever the member's container), then one little-endian record of
24 bytes per packet in decoding order: int64 first byte in the member, uint32 size, uint32 flags (1: keyframe, 2:
shown), int64 pts in the header's time scale. A loader reads only the records of a clip's GOPs and parses no container.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Self

import numpy as np

from maskstream.shards.arrays import Int64s

from .gop_notes import ANCHOR_STRIDE
from .mp4 import Mp4Error, Packets

GOP_LISTS = ("gop_first_frame", "gop_offset", "gop_size", "gop_lead", "gop_packets")
"""Columns with first_frame, offset, size, lead and packets."""
ANCHOR_REACH = "anchor_reach"
"""Column with anchor_reach."""
HEADER = "header"
"""Word with the header in base64."""
_MAX_KNOWN_BYTES = 1 << 12
"""The largest header that is stored as a word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoIndex:
    """The GOPs of a video and their byte ranges, so that a clip needs only the bytes of its GOPs.

    The member is `header fragment fragment ...`; `header` (ftyp and moov) followed by any run of whole fragments is a
    valid MP4. GOP g contains the frames `first_frame[g] <= frame < first_frame[g + 1]` in display order, in the bytes
    `offset[g] : offset[g] + size[g]` of the member. If GOP g + 1 is open, `lead[g + 1]` of these frames are stored
    after its keyframe, so reading GOP g needs the fragment of GOP g + 1 too.

    A member of a foreign tar (`foreign`) may have any container. Its packet table replaces the boxes:
    at `table_offset` of the packets file is a header of `header_size` bytes, then one record per packet, `packets[g]`
    of them for GOP g. A GOP's bytes reach from its first packet to its last.

    In closed GOPs whose first frames are multiples of 4, `anchor_reach` locates the end of the packets of every 4th
    frame, so that a clip of such frames reads no bytes after its last frame: int64 (ceil(n_frames / 4),), for frames 0,
    4, 8 ... the percentage of the GOP's bytes, rounded up, that contains this frame and the GOP's earlier multiples of
    4. None if unknown.

    fps: Frames per second, the average if the rate varies. width, height: Pixels as displayed. header_size: Bytes.
    first_frame, offset, size, lead, packets: int64 (GOPs,); packets is None unless `foreign`. header: The header, so
    that it need not be read; None if it is not stored, for example if few samples of the split share it.
    """

    codec: str
    fps: float
    n_frames: int
    width: int
    height: int
    header_size: int
    first_frame: Int64s
    offset: Int64s
    size: Int64s
    lead: Int64s
    table_offset: int | None = None
    packets: Int64s | None = None
    header: bytes | None = field(default=None, repr=False)
    anchor_reach: Int64s | None = None

    def __post_init__(self) -> None:
        if (self.table_offset is None) != (self.packets is None):
            raise ValueError("table_offset and packets must be passed together, or both be None for a fragmented MP4")

    @classmethod
    def of(cls, facts: Mapping[str, int | float], words: Mapping[str, str], lists: Mapping[str, Int64s]) -> Self:
        """Return the index in the columns of a component of kind `video`; lists: int64 (GOPs,) each, and ANCHOR_REACH
        (n,).
        """
        foreign = "table_offset" in facts
        header, reach = words.get(HEADER), lists.get(ANCHOR_REACH)
        return cls(
            codec=words["codec"],
            fps=float(facts["fps"]),
            n_frames=int(facts["n_frames"]),
            width=int(facts["width"]),
            height=int(facts["height"]),
            header_size=int(facts["header_size"]),
            first_frame=lists["gop_first_frame"],
            offset=lists["gop_offset"],
            size=lists["gop_size"],
            lead=lists["gop_lead"],
            table_offset=int(facts["table_offset"]) if foreign else None,
            packets=lists["gop_packets"] if foreign else None,
            header=None if header is None else _decoded(header),
            anchor_reach=reach if reach is not None and len(reach) else None,
        )

    @property
    def facts(self) -> dict[str, int | float]:
        """Columns that are facts."""
        names = ("fps", "n_frames", "width", "height", "header_size")
        found: dict[str, int | float] = {name: getattr(self, name) for name in names}
        return found if self.table_offset is None else {**found, "table_offset": self.table_offset}

    @property
    def words(self) -> dict[str, str]:
        """Columns that are words."""
        if self.header is None or len(self.header) > _MAX_KNOWN_BYTES:
            return {"codec": self.codec}
        return {"codec": self.codec, HEADER: b64encode(self.header).decode()}

    @property
    def lists(self) -> dict[str, Int64s]:
        """Columns that are lists: int64 (GOPs,) each, and ANCHOR_REACH (ceil(n_frames / 4),)."""
        arrays = (self.first_frame, self.offset, self.size, self.lead, self.packets, self.anchor_reach)
        names = (*GOP_LISTS, ANCHOR_REACH)
        return {name: array for name, array in zip(names, arrays, strict=True) if array is not None}

    @property
    def foreign(self) -> bool:
        """True if the packets are listed in a packets file instead of the member."""
        return self.table_offset is not None

    def gops_of(self, frames: Int64s) -> tuple[int, int]:
        """Return the run of GOPs [start, stop) whose bytes contain `frames` (n,), numbers in display order, not
        empty.
        """
        numbers = frames.tolist()
        first, last = min(numbers), max(numbers)
        if first < 0 or last >= self.n_frames:
            raise ValueError(
                f"frames {first} to {last} do not exist; the video has {self.n_frames} frames (0 to "
                f"{self.n_frames - 1})"
            )
        start = int(self.first_frame.searchsorted(first, side="right")) - 1
        stop = int(self.first_frame.searchsorted(last, side="right"))
        if stop < len(self.lead) and self.lead[stop] and last >= int(self.first_frame[stop]) - int(self.lead[stop]):
            stop += 1
        return start, stop

    def end_of(self, frames: Int64s, stop: int) -> int:
        """Return the end of the bytes in the member that contain `frames` (n,); they are in GOPs before `stop`, from
        `gops_of`.
        """
        begin, size = int(self.offset[stop - 1]), int(self.size[stop - 1])
        if self.anchor_reach is None or (frames % ANCHOR_STRIDE).any():
            return begin + size
        return begin - int(self.anchor_reach[int(frames.max()) // ANCHOR_STRIDE]) * size // -100


@lru_cache(maxsize=1024)
def _decoded(header: str) -> bytes:
    """Decode a header from the manifest; a split has few different ones. Raises binascii.Error if it is not valid
    base64.
    """
    return b64decode(header, validate=True)


def measure_anchor_reach(gops: Iterable[Packets], sizes: Int64s) -> Int64s:
    """Return `VideoIndex.anchor_reach` of closed GOPs: the packets of each, within its bytes, and its size in bytes."""
    reach: list[Int64s] = []
    for packets, size in zip(gops, sizes.tolist(), strict=True):
        anchors = np.argsort(packets.pts)[::ANCHOR_STRIDE]
        ends = np.maximum.accumulate(packets.start[anchors] + packets.size[anchors])
        reach.append(-(-100 * ends // size))
    return np.concatenate(reach)


PACKETS = ".packets"
RECORD = np.dtype([("start", "<i8"), ("size", "<u4"), ("flags", "<u4"), ("pts", "<i8")])

_KEYFRAME, _SHOWN = 1, 2


def name_sidecar(shard: str, suffix: str) -> str:
    """Return the name, in the split's store, of a shard's file with this suffix.

    The file is in the split's folder, even if the tar is not.
    """
    return PurePosixPath(shard).with_suffix(suffix).name


def name_packets_file(shard: str) -> str:
    """Return the name of a shard's packets file in the split's store."""
    return name_sidecar(shard, PACKETS)


def encode_table(packets: Packets) -> bytes:
    """Pack the records of packets; their starts are relative to the member."""
    table = np.zeros(len(packets.start), RECORD)
    shown = np.ones_like(packets.keyframe) if packets.shown is None else packets.shown
    table["start"], table["size"], table["pts"] = packets.start, packets.size, packets.pts
    table["flags"] = _KEYFRAME * packets.keyframe + _SHOWN * shown
    return table.tobytes()


def locate_records(video: VideoIndex, first: int, stop: int) -> tuple[int, int]:
    """Return offset and size, in bytes, of the records of the GOPs [first, stop) of a foreign video in its packets
    file.
    """
    if video.table_offset is None or video.packets is None:
        raise ValueError("the video is not foreign: a fragmented MP4 stores its packets in the member, not in a table")
    before, count = int(video.packets[:first].sum()), int(video.packets[first:stop].sum())
    return video.table_offset + video.header_size + before * RECORD.itemsize, count * RECORD.itemsize


def read_table(data: bytes, base: int) -> Packets:
    """Parse the packets of some records, with starts relative to byte `base` of the member.

    Raises Mp4Error if the records are damaged.
    """
    if not data or len(data) % RECORD.itemsize:
        raise Mp4Error(f"{len(data)} bytes are not a packet table; run `maskstream index` again")
    table = np.frombuffer(data, RECORD)
    start = table["start"] - base
    if start.min() < 0:
        raise Mp4Error(f"a packet starts {-start.min()} bytes before its GOP; run `maskstream index` again")
    return Packets(
        start=start,
        size=table["size"].astype(np.int64),
        pts=table["pts"].astype(np.int64),
        keyframe=(table["flags"] & _KEYFRAME) != 0,
        shown=(table["flags"] & _SHOWN) != 0,
    )
