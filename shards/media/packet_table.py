"""Where the packets of videos lie that stand in tars which others wrote: the file `NAME.packets` of the tar NAME.tar.

For each video, at the fact `table_offset`: a header (`ftyp moov`, as a fragmented MP4 has it, whatever the
member's container is), then one record of 24 bytes per packet in decoding order, little-endian: int64 first byte in the
member, uint32 size, uint32 flags (1: keyframe, 2: shown), int64 pts in the header's time scale. So no container is
parsed when a clip is loaded, and what is read of the table is the records of the clip's GOPs.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from .mp4 import Mp4Error, Packets
from .video_index import VideoIndex

PACKETS = ".packets"
RECORD = np.dtype([("start", "<i8"), ("size", "<u4"), ("flags", "<u4"), ("pts", "<i8")])

_KEYFRAME, _SHOWN = 1, 2


def beside(folder: Path, shard: str, suffix: str) -> Path:
    """The file of shard `shard` that stands in the split's folder, wherever the tar itself is."""
    return folder / PurePosixPath(shard).with_suffix(suffix).name


def packets_name(shard: str) -> str:
    """The file of packets of a shard, as the split's store names it."""
    return PurePosixPath(shard).with_suffix(PACKETS).name


def packets_path(folder: Path, shard: str) -> Path:
    """The file of packets of a shard."""
    return folder / packets_name(shard)


def table_bytes(packets: Packets) -> bytes:
    """The records of packets whose starts count from the member's first byte."""
    table = np.zeros(len(packets.start), RECORD)
    shown = np.ones_like(packets.keyframe) if packets.shown is None else packets.shown
    table["start"], table["size"], table["pts"] = packets.start, packets.size, packets.pts
    table["flags"] = _KEYFRAME * packets.keyframe + _SHOWN * shown
    return table.tobytes()


def records_of(video: VideoIndex, first: int, stop: int) -> tuple[int, int]:
    """Where the records of the GOPs [first, stop) of a foreign video lie in its shard's file: offset, size in bytes."""
    if video.table_offset is None or video.packets is None:
        raise ValueError("the packets of a fragmented MP4 stand in the member, not in a table")
    before, count = int(video.packets[:first].sum()), int(video.packets[first:stop].sum())
    return video.table_offset + video.header_size + before * RECORD.itemsize, count * RECORD.itemsize


def read_table(data: bytes, base: int) -> Packets:
    """The packets of some records, with starts that count from byte `base` of the member; Mp4Error where none fit."""
    if not data or len(data) % RECORD.itemsize:
        raise Mp4Error(f"{len(data)} bytes are no packet table; run `maskstream index` again")
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
