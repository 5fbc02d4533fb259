"""From the bytes of a few GOPs to the packets that a clip needs: no file is opened, nothing is probed, nothing is
sought.

A shard's video member is `ftyp moov (moof mdat)*` with one fragment per GOP (docs/shard-format.md), so a clip's bytes
are the header and a run of fragments. This file reads the boxes itself: the header gives codec, extradata and time
scale, a fragment gives each packet's place and time. Opening the same bytes with libavformat costs more than decoding
a GOP's reference frames.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]

_CODECS = {b"avc1": "h264", b"hvc1": "hevc", b"hev1": "hevc", b"vp09": "vp9", b"av01": "av1"}
_EXTRADATA = {"h264": b"avcC", "hevc": b"hvcC", "av1": b"av1C"}
_VISUAL_ENTRY_SIZE = 78
_H264_SLICE, _H264_IDR = 1, 5


class PacketError(Exception):
    """The bytes are not what the index says: not boxes, not these boxes, or fewer of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """The video track of a fragmented MP4: what a decoder must be told, and the defaults of its fragments."""

    codec: str
    extradata: bytes
    timescale: int
    default_duration: int
    default_size: int
    default_flags: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Packets:
    """Packets in decoding order: start and size in bytes of the data given, pts in the track's time scale, keyframe."""

    start: Int64Array
    size: Int64Array
    pts: Int64Array
    keyframe: npt.NDArray[np.bool_]


def boxes(data: memoryview, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start of the payload, end) of each box in data[start:stop]; PacketError where one does not fit."""
    while start < stop:
        if stop - start < 8:
            raise PacketError(f"{stop - start} stray bytes where a box should start (byte {start})")
        size, kind = struct.unpack_from(">I4s", data, start)
        payload = start + 8
        if size == 1:
            size = struct.unpack_from(">Q", data, payload)[0]
            payload += 8
        end = start + size
        if end > stop or end < payload:
            raise PacketError(f"box {kind!r} at byte {start} says {size} bytes, {stop - start} are there")
        yield kind, payload, end
        start = end


def _child(data: memoryview, span: tuple[int, int], *path: bytes) -> tuple[int, int]:
    for name in path:
        for kind, start, end in boxes(data, *span):
            if kind == name:
                span = (start, end)
                break
        else:
            raise PacketError(f"no box {name!r} in the header (looked for {b'/'.join(path)!r})")
    return span


@lru_cache(maxsize=1024)
def read_header(header: bytes) -> Track:
    """The video track of `ftyp moov`; PacketError for another codec than H.264, HEVC, VP9 or AV1."""
    data = memoryview(header)
    moov = _child(data, (0, len(data)), b"moov")
    media = _child(data, moov, b"trak", b"mdia")
    mdhd, _ = _child(data, media, b"mdhd")
    timescale = struct.unpack_from(">I", data, mdhd + (20 if data[mdhd] == 1 else 12))[0]
    stsd, stsd_end = _child(data, media, b"minf", b"stbl", b"stsd")
    entry, start, end = next(boxes(data, stsd + 8, stsd_end))
    codec = _CODECS.get(entry)
    if codec is None:
        raise PacketError(f"sample entry {entry!r}; legal are {sorted(_CODECS)}")
    extradata = b""
    if codec in _EXTRADATA:
        a, b = _child(data, (start + _VISUAL_ENTRY_SIZE, end), _EXTRADATA[codec])
        extradata = bytes(data[a:b])
    trex, _ = _child(data, moov, b"mvex", b"trex")
    duration, size, flags = struct.unpack_from(">III", data, trex + 12)
    return Track(
        codec=codec,
        extradata=extradata,
        timescale=timescale,
        default_duration=duration,
        default_size=size,
        default_flags=flags,
    )


def read_fragments(data: memoryview, track: Track) -> Packets:
    """The packets of a run of whole fragments, in decoding order."""
    runs: list[tuple[Int64Array, Int64Array, Int64Array, npt.NDArray[np.bool_]]] = []
    moof_start, fragment_start = -1, 0
    for kind, start, end in boxes(data, 0, len(data)):
        if kind == b"moof":
            moof_start, moof_end, moof_box = start, end, fragment_start
            runs.extend(_read_moof(data, (moof_start, moof_end), moof_box, track))
        fragment_start = end
    if not runs:
        raise PacketError("no fragment (moof) in the bytes of the GOPs")
    start_, size, pts, key = (np.concatenate([r[i] for r in runs]) for i in range(4))
    if int((start_ + size).max()) > len(data):
        raise PacketError(f"packets reach byte {int((start_ + size).max())}, {len(data)} bytes are there")
    return Packets(start=start_, size=size, pts=pts, keyframe=key)


def _read_moof(
    data: memoryview, span: tuple[int, int], moof_box: int, track: Track
) -> Iterator[tuple[Int64Array, Int64Array, Int64Array, npt.NDArray[np.bool_]]]:
    """One (start, size, pts, keyframe) per trun; offsets count from the moof's first byte (default-base-is-moof)."""
    traf = _child(data, span, b"traf")
    duration, size, flags, decode_time = track.default_duration, track.default_size, track.default_flags, 0
    for kind, start, _ in boxes(data, *traf):
        if kind == b"tfhd":
            bits = struct.unpack_from(">I", data, start)[0]
            if bits & 0x1:
                raise PacketError("fragment with an absolute base offset; only default-base-is-moof is read")
            at = start + 8 + (4 if bits & 0x2 else 0)
            if bits & 0x8:
                duration, at = struct.unpack_from(">I", data, at)[0], at + 4
            if bits & 0x10:
                size, at = struct.unpack_from(">I", data, at)[0], at + 4
            if bits & 0x20:
                flags = struct.unpack_from(">I", data, at)[0]
        elif kind == b"tfdt":
            decode_time = struct.unpack_from(">Q" if data[start] == 1 else ">I", data, start + 4)[0]
        elif kind == b"trun":
            yield _read_trun(data, start, moof_box, (duration, size, flags), decode_time)


def _read_trun(
    data: memoryview, start: int, base: int, defaults: tuple[int, int, int], decode_time: int
) -> tuple[Int64Array, Int64Array, Int64Array, npt.NDArray[np.bool_]]:
    bits, count = struct.unpack_from(">II", data, start)
    at = start + 8
    offset = 0
    if bits & 0x1:
        offset, at = struct.unpack_from(">i", data, at)[0], at + 4
    first_flags = None
    if bits & 0x4:
        first_flags, at = struct.unpack_from(">I", data, at)[0], at + 4
    present = [bool(bits & bit) for bit in (0x100, 0x200, 0x400, 0x800)]
    if at + 4 * sum(present) * count > len(data):
        raise PacketError(f"a run of {count} packets does not fit in {len(data)} bytes")
    table = np.frombuffer(data, dtype=">u4", count=sum(present) * count, offset=at).reshape(count, -1).astype(np.int64)
    columns = iter(table.T)
    durations, sizes, flags, cts = (
        next(columns) if there else np.full(count, default, dtype=np.int64)
        for there, default in zip(present, (*defaults, 0), strict=True)
    )
    if first_flags is not None:
        flags = flags.copy()
        flags[0] = first_flags
    cts = np.where(cts >= 1 << 31, cts - (1 << 32), cts)
    ends = np.cumsum(sizes)
    dts = decode_time + np.cumsum(durations) - durations
    return base + offset + ends - sizes, sizes, dts + cts, (flags & 0x10000) == 0


def wanted_packets(data: memoryview, track: Track, packets: Packets, wanted_pts: Int64Array) -> Int64Array:
    """Indexes (decoding order) of the packets that must be decoded for the frames shown at `wanted_pts`.

    H.264 only: frames that nothing refers to (nal_ref_idc 0) are left out unless they are wanted, and so is what
    follows the last wanted frame before the next IDR frame. Every other codec: all packets up to the last wanted one.
    """
    wanted = np.isin(packets.pts, wanted_pts)
    last = int(np.flatnonzero(wanted)[-1]) + 1
    if track.codec != "h264":
        return np.arange(last)
    length_size = (track.extradata[4] & 3) + 1
    kinds = [
        _h264_kind(data, int(a), int(n), length_size)
        for a, n in zip(packets.start[:last], packets.size[:last], strict=True)
    ]
    keep: list[int] = []
    needed = False
    for i in range(last - 1, -1, -1):
        needed = needed or bool(wanted[i])
        is_reference, is_idr = kinds[i]
        if needed and (is_reference or wanted[i]):
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
