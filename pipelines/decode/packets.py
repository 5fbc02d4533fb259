"""Selects the packets of a run of GOPs that must be decoded for the frames of a clip."""

from __future__ import annotations

from operator import add

import numpy as np

from maskstream.shards.media.mp4 import Int64Array, Mp4Error, Packets, Track

_H264_SLICE, _H264_IDR = 1, 5


def wanted_pts(packets: Packets, first_frame: int, numbers: Int64Array) -> Int64Array:
    """The presentation times of the frames `numbers`, in a run of GOPs that starts at frame `first_frame`.

    Hidden frames and frames shown before the first keyframe, which belong to the GOP before, are not counted. Raises
    Mp4Error if a frame is missing.
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
    """The indexes (decoding order) of the packets that must be decoded for the frames shown at `pts`.

    In H.264, unwanted frames without references to them (nal_ref_idc 0) are left out, and so are the packets between
    the last wanted frame and the next IDR frame. In FFV1 whose packets are all keyframes, as depth is stored, none but
    the wanted ones are needed; in other codecs, all packets up to the last wanted one.
    Raises Mp4Error if `data` ends before the last one.
    """
    wanted = set(pts.tolist())
    is_wanted = [p in wanted for p in packets.pts.tolist()]
    last = len(is_wanted) - is_wanted[::-1].index(True)
    starts, sizes = packets.start[:last].tolist(), packets.size[:last].tolist()
    if (end := max(map(add, starts, sizes))) > len(data):
        raise Mp4Error(f"the packets needed end at byte {end}, but only {len(data)} bytes were read")
    if track.codec == "ffv1" and bool(packets.keyframe[:last].all()):
        return np.flatnonzero(is_wanted)
    if track.codec != "h264":
        return np.arange(last)
    length_size = (track.extradata[4] & 3) + 1
    keep: list[int] = []
    needed = False
    for i in range(last - 1, -1, -1):
        needed = needed or is_wanted[i]
        is_reference, is_idr = h264_kind(data, starts[i], sizes[i], length_size)
        if needed and (is_reference or is_wanted[i]):
            keep.append(i)
        if is_idr:
            needed = False
    return np.asarray(keep[::-1], dtype=np.int64)


def h264_kind(data: memoryview, start: int, size: int, length_size: int) -> tuple[bool, bool]:
    """(is a reference, is IDR) of an AVCC packet, from its first slice."""
    at, end = start, start + size
    while at + length_size < end:
        nal = data[at + length_size]
        if _H264_SLICE <= nal & 31 <= _H264_IDR:
            return nal & 0x60 != 0, nal & 31 == _H264_IDR
        at += length_size + int.from_bytes(data[at : at + length_size], "big")
    return True, False
