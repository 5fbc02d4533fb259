"""Which packets of a run of GOPs a decoder must be given for the frames that a clip wants."""

from __future__ import annotations

import numpy as np

from ...shards.media.mp4 import Int64Array, Mp4Error, Packets, Track

_H264_SLICE, _H264_IDR = 1, 5


def wanted_pts(packets: Packets, first_frame: int, numbers: Int64Array) -> Int64Array:
    """When the frames `numbers` of the video are shown, in a run of GOPs that starts at frame `first_frame`.

    Frames that lead the first keyframe belong to the GOP before and do not count, nor do hidden ones. Mp4Error where
    one is not there.
    """
    counts = packets.pts >= packets.pts[0]
    shown = np.sort(packets.pts[counts if packets.shown is None else counts & packets.shown])
    places = numbers - first_frame
    if places.min() < 0 or places.max() >= len(shown):
        raise Mp4Error(
            f"frames {numbers.min()}..{numbers.max()} are not among the {len(shown)} frames from {first_frame} on"
        )
    pts: Int64Array = shown[places]
    return pts


def wanted_packets(data: memoryview, track: Track, packets: Packets, pts: Int64Array) -> Int64Array:
    """Indexes (decoding order) of the packets that must be decoded for the frames shown at `pts`.

    H.264 only: frames that nothing refers to (nal_ref_idc 0) are left out unless they are wanted, and so is what
    follows the last wanted frame before the next IDR frame. Every other codec: all packets up to the last wanted one.
    """
    wanted = set(pts.tolist())
    is_wanted = [p in wanted for p in packets.pts.tolist()]
    last = len(is_wanted) - is_wanted[::-1].index(True)
    if track.codec != "h264":
        return np.arange(last)
    length_size = (track.extradata[4] & 3) + 1
    starts, sizes = packets.start[:last].tolist(), packets.size[:last].tolist()
    keep: list[int] = []
    needed = False
    for i in range(last - 1, -1, -1):
        needed = needed or is_wanted[i]
        is_reference, is_idr = _h264_kind(data, starts[i], sizes[i], length_size)
        if needed and (is_reference or is_wanted[i]):
            keep.append(i)
        if is_idr:
            needed = False
    return np.asarray(keep[::-1], dtype=np.int64)


def _h264_kind(data: memoryview, start: int, size: int, length_size: int) -> tuple[bool, bool]:
    """(referred to by others, IDR) of an AVCC packet, from its first slice."""
    at, end = start, start + size
    while at + length_size < end:
        nal = data[at + length_size]
        if _H264_SLICE <= nal & 31 <= _H264_IDR:
            return nal & 0x60 != 0, nal & 31 == _H264_IDR
        at += length_size + int.from_bytes(data[at : at + length_size], "big")
    return True, False
