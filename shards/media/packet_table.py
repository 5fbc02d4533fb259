"""The packet tables of videos in a foreign tar NAME.tar, in the packets file `NAME.packets`.

The table of a video is at the fact `table_offset`. It is a header (`ftyp moov` of a fragmented MP4, whatever the
member's container is), then one little-endian record of 24 bytes per packet in decoding order: int64 first byte in the
member, uint32 size, uint32 flags (1: keyframe, 2: shown), int64 pts in the header's time scale. A loader reads only the
records of a clip's GOPs and parses no container.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from .mp4 import Mp4Error, Packets
from .video_index import VideoIndex

PACKETS = ".packets"
RECORD = np.dtype([("start", "<i8"), ("size", "<u4"), ("flags", "<u4"), ("pts", "<i8")])

_KEYFRAME, _SHOWN = 1, 2


def sidecar_name(shard: str, suffix: str) -> str:
    """The name, in the split's store, of the file with this suffix that belongs to a shard.

    It is in the split's folder, even if the tar is not.
    """
    return PurePosixPath(shard).with_suffix(suffix).name


def packets_name(shard: str) -> str:
    """The name of a shard's packets file in the split's store."""
    return sidecar_name(shard, PACKETS)


def packets_path(folder: Path, shard: str) -> Path:
    """The path of a shard's packets file."""
    return folder / packets_name(shard)


def table_bytes(packets: Packets) -> bytes:
    """The records of packets; their starts are relative to the member."""
    table = np.zeros(len(packets.start), RECORD)
    shown = np.ones_like(packets.keyframe) if packets.shown is None else packets.shown
    table["start"], table["size"], table["pts"] = packets.start, packets.size, packets.pts
    table["flags"] = _KEYFRAME * packets.keyframe + _SHOWN * shown
    return table.tobytes()


def records_of(video: VideoIndex, first: int, stop: int) -> tuple[int, int]:
    """Offset and size, in bytes, of the records of the GOPs [first, stop) of a foreign video in its packets file."""
    if video.table_offset is None or video.packets is None:
        raise ValueError("the video is not foreign: the packets of a fragmented MP4 are in the member, not in a table")
    before, count = int(video.packets[:first].sum()), int(video.packets[first:stop].sum())
    return video.table_offset + video.header_size + before * RECORD.itemsize, count * RECORD.itemsize


def read_table(data: bytes, base: int) -> Packets:
    """The packets of some records, with starts relative to byte `base` of the member.

    Raises Mp4Error if the records are damaged.
    """
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
