"""Reads the boxes of fragmented MP4 (ISO 14496-12): the video track and the position of each packet.

A shard's video member is `ftyp moov (moof mdat)*` with one fragment per GOP (docs/shard-format.md). Reading the boxes
takes a tenth of the time of opening the same bytes with libavformat, and nothing is probed or guessed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain
from operator import add

import numpy as np

from maskstream.shards.arrays import Bools, Int64s
from maskstream.shards.errors import DataError

CODECS = {b"avc1": "h264", b"hvc1": "hevc", b"hev1": "hevc", b"vp09": "vp9", b"av01": "av1", b"FFV1": "ffv1"}
EXTRADATA = {"h264": b"avcC", "hevc": b"hvcC", "av1": b"av1C", "ffv1": b"glbl"}
VISUAL_ENTRY_SIZE = 78
"""Bytes of a visual sample entry before its boxes (ISO 14496-12, 12.1.3)."""
SIZE_IN_ENTRY = 24
"""Offset of width and height in it."""

DECODERS = {"h264": "h264", "hevc": "hevc", "vp9": "vp9", "av1": "libdav1d", "ffv1": "ffv1"}
"""FFmpeg's CPU decoder for each codec (FFmpeg's own AV1 decoder needs a GPU)."""


_CACHED_BYTES = 1 << 16
"""Longest header that is stored; a fragmented MP4 has a header of about 1 KiB."""
_PACKET_BYTES = 8
"""Minimum number of bytes of a packet in a fragment, with its entries in the tables."""


class Mp4Error(DataError):
    """The bytes are not valid boxes, or not the boxes that the index describes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """The video track of a fragmented MP4: the decoder's parameters and the defaults of fragments.

    size: Width and height in pixels if the decoder must know them before it opens (FFV1), else zeros.
    """

    track_id: int
    codec: str
    extradata: bytes
    timescale: int
    default_duration: int = 0
    default_size: int = 0
    default_flags: int = 0
    size: tuple[int, int] = (0, 0)


Span = tuple[int, int]
"""Start and end of a box's payload."""

Run = tuple[list[int], Sequence[int], list[int], list[bool]]
"""start, size, pts and keyframe of some packets, as in Packets; lists are faster than arrays for so few packets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Packets:
    """Packets in decoding order: start and size in bytes within the given data, pts in the track's time scale,
    keyframe.

    shown: Which packets become frames of the video (an edit list may hide some); None means all.
    """

    start: Int64s
    size: Int64s
    pts: Int64s
    keyframe: Bools
    shown: Bools | None = None

    def __getitem__(self, own: slice) -> Packets:
        """Return some of the packets."""
        shown = None if self.shown is None else self.shown[own]
        start, size, pts = (each[own] for each in (self.start, self.size, self.pts))
        return Packets(start=start, size=size, pts=pts, keyframe=self.keyframe[own], shown=shown)


def boxes(data: memoryview, start: int, stop: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield (type, start, start of the payload, end) of each box in data[start:stop]. Raises Mp4Error if one does not
    fit.
    """
    while start < stop:
        if stop - start < 8:
            raise Mp4Error(f"found {stop - start} stray bytes where a box should start (byte {start})")
        size, kind = struct.unpack_from(">I4s", data, start)
        payload = start + 8
        # A size of 1 means that a 64-bit size follows. A size of 0, a box up to the end of the file, is not valid
        # here: the box would end before its payload.
        if size == 1:
            size = struct.unpack_from(">Q", data, payload)[0]
            payload += 8
        end = start + size
        if end > stop or end < payload:
            raise Mp4Error(f"box {kind!r} at byte {start} declares {size} bytes, but there are {stop - start}")
        yield kind, start, payload, end
        start = end


def child(data: memoryview, span: Span, *path: bytes) -> Span:
    """Return the payload of the box at `path` in the payload `span`. Raises Mp4Error if it does not exist."""
    for name in path:
        for kind, _, start, end in boxes(data, *span):
            if kind == name:
                span = (start, end)
                break
        else:
            raise Mp4Error(f"the header has no box {name!r} (looked for {b'/'.join(path)!r})")
    return span


def sample_entry(data: memoryview, stsd: Span) -> tuple[bytes, int, int]:
    """Return the type of the first sample entry, and the start and end of its payload."""
    kind, _, start, end = next(boxes(data, stsd[0] + 8, stsd[1]))
    return kind, start, end


def read_header(header: bytes) -> Track:
    """Read the video track of `ftyp moov`. Raises Mp4Error for a codec other than H.264, HEVC, VP9, AV1 or FFV1."""
    return _cached_header(header) if len(header) <= _CACHED_BYTES else _read_header(header)


def track_of(header: bytes | Track) -> Track:
    """Return the track itself, or the track of a header, as `read_header` reads it."""
    return header if isinstance(header, Track) else read_header(header)


def _read_header(header: bytes) -> Track:
    try:
        return _read_moov(memoryview(header))
    except (struct.error, IndexError, StopIteration) as error:
        raise Mp4Error(f"the header is truncated ({error})") from error


_cached_header = lru_cache(maxsize=1024)(_read_header)


def _read_moov(data: memoryview) -> Track:
    moov = child(data, (0, len(data)), b"moov")
    media = child(data, moov, b"trak", b"mdia")
    mdhd, _ = child(data, media, b"mdhd")
    timescale = struct.unpack_from(">I", data, mdhd + (20 if data[mdhd] == 1 else 12))[0]
    if timescale == 0:
        raise Mp4Error("the time scale of the track is 0")
    entry, start, end = sample_entry(data, child(data, media, b"minf", b"stbl", b"stsd"))
    codec = CODECS.get(entry)
    if codec is None:
        raise Mp4Error(f"sample entry {entry!r}; expected {sorted(CODECS)}")
    extradata = b""
    if codec in EXTRADATA:
        a, b = child(data, (start + VISUAL_ENTRY_SIZE, end), EXTRADATA[codec])
        extradata = bytes(data[a:b])
    width, height = struct.unpack_from(">HH", data, start + SIZE_IN_ENTRY) if codec == "ffv1" else (0, 0)
    trex, _ = child(data, moov, b"mvex", b"trex")
    track_id, _, duration, size, flags = struct.unpack_from(">IIIII", data, trex + 4)
    return Track(
        track_id=track_id,
        codec=codec,
        extradata=extradata,
        timescale=timescale,
        default_duration=duration,
        default_size=size,
        default_flags=flags,
        size=(width, height),
    )


def read_fragments(data: memoryview, track: Track, whole: int | None = None) -> Packets:
    """Read the packets of a run of whole fragments, in decoding order. Raises Mp4Error if some are missing.

    whole: Size of the run in bytes if `data` is only its beginning, which contains all moofs; packets may then lie
    beyond `data`.
    """
    whole = len(data) if whole is None else whole
    try:
        runs: list[Run] = []
        count = 0
        for kind, start, payload, end in boxes(data, 0, whole):
            for run in _read_moof(data, start, (payload, end), track) if kind == b"moof" else ():
                runs.append(run)
                # A run may claim billions of packets in a few bytes, if all have default sizes, so check the count
                # against the available bytes before allocating arrays.
                if (count := count + len(run[0])) > len(data) // _PACKET_BYTES:
                    raise Mp4Error(f"at least {count} packets do not fit in {len(data)} bytes")
    except (struct.error, IndexError) as error:
        raise Mp4Error(f"a fragment is truncated ({error})") from error
    if not any(run[0] for run in runs):
        raise Mp4Error("the bytes of the GOPs contain no fragment (moof) with a packet")
    starts, sizes, pts, keyframe = (list(chain.from_iterable(column)) for column in zip(*runs, strict=True))
    if sum(sizes) > whole:
        raise Mp4Error(f"the packets have {sum(sizes)} bytes in total, but there are {whole}")
    first, end = min(starts), max(map(add, starts, sizes))
    if first < 0 or end > whole:
        raise Mp4Error(f"packets extend from byte {first} to {end}, but there are only {whole} bytes")
    if max(pts) >= 1 << 63:
        raise Mp4Error(f"a packet has the pts {max(pts)}, which does not fit in int64")
    return Packets(
        start=np.array(starts, dtype=np.int64),
        size=np.array(sizes, dtype=np.int64),
        pts=np.array(pts, dtype=np.int64),
        keyframe=np.array(keyframe, dtype=np.bool_),
    )


def _read_moof(data: memoryview, base: int, span: tuple[int, int], track: Track) -> Iterator[Run]:
    """Return the runs of one fragment; offsets are relative to `base`, the first byte of its moof
    (default-base-is-moof).
    """
    traf = child(data, span, b"traf")
    duration, size, flags, decode_time = track.default_duration, track.default_size, track.default_flags, 0
    for kind, _, at, _ in boxes(data, *traf):
        # `tfhd` sets defaults for the runs (`trun`) behind it, `tfdt` the time of the first packet; each run begins
        # where the one before it ended. The bits of `tfhd` select the fields that follow, in bit order.
        if kind == b"tfhd":
            bits = struct.unpack_from(">I", data, at)[0]
            if bits & 0x1:
                raise Mp4Error("a fragment has an absolute base offset; only default-base-is-moof is supported")
            at += 8 + (4 if bits & 0x2 else 0)
            if bits & 0x8:
                duration, at = struct.unpack_from(">I", data, at)[0], at + 4
            if bits & 0x10:
                size, at = struct.unpack_from(">I", data, at)[0], at + 4
            if bits & 0x20:
                flags = struct.unpack_from(">I", data, at)[0]
        elif kind == b"tfdt":
            decode_time = struct.unpack_from(">Q" if data[at] == 1 else ">I", data, at + 4)[0]
        elif kind == b"trun":
            run, took = _read_trun(data, at, base, (duration, size, flags), decode_time)
            decode_time += took
            yield run


def _read_trun(
    data: memoryview, start: int, base: int, defaults: tuple[int, int, int], decode_time: int
) -> tuple[Run, int]:
    """A run of packets and its duration."""
    bits, count = struct.unpack_from(">II", data, start)
    at = start + 8
    offset = 0
    if bits & 0x1:
        offset, at = struct.unpack_from(">i", data, at)[0], at + 4
    first_flags = None
    if bits & 0x4:
        first_flags, at = struct.unpack_from(">I", data, at)[0], at + 4
    # The bits select which of duration, size, flags and composition offset each packet has. They are stored packet by
    # packet, so column n is every k-th number starting at n; a missing column means the default for all.
    present = [bool(bits & bit) for bit in (0x100, 0x200, 0x400, 0x800)]
    if at + 4 * sum(present) * count > len(data) or count > len(data) // _PACKET_BYTES:
        raise Mp4Error(f"a run of {count} packets does not fit in {len(data)} bytes")
    table = struct.unpack_from(f">{sum(present) * count}I", data, at)
    columns = iter(table[n :: sum(present)] for n in range(sum(present)))
    durations, sizes, flags, cts = (
        next(columns) if there else (default,) * count for there, default in zip(present, (*defaults, 0), strict=True)
    )
    if first_flags is not None:
        flags = (first_flags, *flags[1:])[:count]
    starts = list(accumulate(sizes, initial=base + offset))[:-1]
    # A pts is the decoding time and the composition offset, which is signed, though it is read as unsigned above.
    dts = accumulate(durations, initial=decode_time)
    pts = [at - (1 << 32) + late if late >= 1 << 31 else at + late for at, late in zip(dts, cts, strict=False)]
    return (starts, sizes, pts, [not flag & 0x10000 for flag in flags]), sum(durations)
