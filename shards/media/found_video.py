"""Open any video in place: its packets, its index, and the bytes of any of its GOPs.

For an MP4 or MOV with one packet table, only this table is read (ISO 14496-12, 8.6 to 8.7), wherever it lies in the
file, and then the bytes of a clip. A fragmented MP4 with one track, such as a member of a shard, is read as a whole,
including its GOP notes. For all other files, such as Matroska, WebM, or files whose edit list hides frames, FFmpeg's
demuxer reads all packets.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import BinaryIO, Protocol

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.stream import Disposition

from maskstream.shards.arrays import Int64s
from maskstream.shards.errors import DataError

from .gop_notes import GopNotes, gop_notes
from .gops import average_rate, candidates, index_of_packets
from .h264_sps import UnknownSpsError, read_sps
from .local_media import MediaError, find_side_data, open_media
from .mp4 import (
    CODECS,
    DECODERS,
    EXTRADATA,
    SIZE_IN_ENTRY,
    VISUAL_ENTRY_SIZE,
    Mp4Error,
    Packets,
    Span,
    Track,
    boxes,
    child,
    read_fragments,
    read_header,
    sample_entry,
)
from .video_index import VideoIndex

_EBML = b"\x1a\x45\xdf\xa3"
_LEGAL = tuple(codec for codec in DECODERS if codec != "ffv1")
_WITH_RECORD = ("h264", "hevc")
"""Codecs whose decoder needs a configuration record to expect length prefixes instead of start codes."""
_UPRIGHT = struct.pack(">iiiiiiiii", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_OTHER_TABLES = {b"stz2", b"stps", b"sbgp"}
"""Boxes that are not supported: compact sizes, and keyframes outside the keyframe table."""
_UNSUPPORTED = "convert it with `maskstream shards folder`"


class Bytes(Protocol):
    """Return `size` bytes at `offset`, or fewer at the end."""

    def __call__(self, offset: int, size: int) -> bytes | memoryview: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundVideo:
    """A video and its packets. index: Same form as for a foreign tar. read: Returns the bytes in which the packets
    start.

    packets: From the first keyframe on, with pts counted from the first displayed frame, in the track's time scale.
    fragments: int64 (n + 1,), first byte of each fragment and end of the last; empty for a file without fragments.
    """

    track: Track
    packets: Packets
    index: VideoIndex
    read: Bytes = field(repr=False)
    fragments: Int64s = field(default_factory=lambda: np.empty(0, np.int64))

    def notes(self, packets: Packets) -> GopNotes:
        """Return the stored notes of the GOPs of some packets. Raise Mp4Error if they do not fit the video."""
        if not len(self.fragments):
            return GopNotes()
        first = np.searchsorted(self.fragments, packets.start[0], side="right") - 1
        stop = np.searchsorted(self.fragments, packets.start[-1], side="right")
        begin, end = int(self.fragments[first]), int(self.fragments[stop])
        return gop_notes(memoryview(self.read(begin, end - begin)), self.index.width, self.index.height)

    def gops(self, first: int, stop: int) -> Packets:
        """Return the packets of the GOPs [first, stop)."""
        assert self.index.packets is not None
        return self.packets[int(self.index.packets[:first].sum()) : int(self.index.packets[:stop].sum())]


class _OtherTableError(Exception):
    """The packet table is of a kind that FFmpeg has to read."""


def bytes_of(source: bytes | bytearray | memoryview | BinaryIO) -> tuple[Bytes, int]:
    """Return a function that reads a source, and its size in bytes. Raise ValueError for a file without random
    access.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        data = memoryview(source).cast("B")
        return (lambda offset, size: data[offset : offset + size]), len(data)
    try:
        size_bytes = source.seek(0, os.SEEK_END)
    except (AttributeError, OSError, ValueError) as error:
        raise ValueError(
            f"{source!r} does not support random access ({error}); pass its bytes: source.read()"
        ) from error

    def read(offset: int, size: int) -> bytes:
        source.seek(offset)
        parts = []
        while size and (part := source.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    return read, size_bytes


def open_video(read: Bytes, size_bytes: int) -> FoundVideo:
    """Open the video in a file of `size_bytes` bytes. Raises DataError if it is not a complete video, or decoders
    cannot handle it as it is.
    """
    if not size_bytes:
        raise DataError("is empty (0 bytes)")
    try:
        return _index_boxes(read, size_bytes)
    except (_OtherTableError, Mp4Error, struct.error, IndexError, StopIteration, UnknownSpsError):
        pass  # FFmpeg reports what is wrong, if anything
    try:
        return _demux_copy(bytes(read(0, size_bytes)))
    except MediaError as error:
        raise DataError(f"is not an mp4, mov, mkv or webm file: it {error}") from error
    except av.FFmpegError as error:
        raise DataError(f"is not an mp4, mov, mkv or webm file, or is damaged ({error})") from error


def _index_boxes(read: Bytes, size_bytes: int) -> FoundVideo:
    """Open an MP4 or MOV that needs no demuxer."""
    moov, end = _moov(read, size_bytes)
    parts = {kind: (start, stop) for kind, _, start, stop in boxes(moov, 0, len(moov)) if kind != b"trak"}
    if b"mvhd" not in parts:
        raise _OtherTableError
    mvhd, _ = parts[b"mvhd"]
    matrix = mvhd + (48 if moov[mvhd] else 36)
    if moov[matrix : matrix + len(_UPRIGHT)] != _UPRIGHT:
        raise _OtherTableError
    (scale,) = struct.unpack_from(">I", moov, mvhd + (20 if moov[mvhd] else 12))
    tracks = [(start, stop) for kind, _, start, stop in boxes(moov, 0, len(moov)) if kind == b"trak"]
    chosen = next((track for track in tracks if _is_video(moov, track)), None)
    if chosen is None or (b"mvex" in parts and len(tracks) > 1):
        raise _OtherTableError
    trak = _Trak(moov, chosen, scale)
    if b"mvex" in parts:
        return _index_fragmented(trak, bytes(read(0, size_bytes)), end)
    return _index_tables(trak, read, size_bytes)


def _moov(read: Bytes, size_bytes: int) -> tuple[memoryview, int]:
    """Return the payload of the box moov, and its end in the file."""
    at = 0
    while at + 8 <= size_bytes:
        head = bytes(read(at, 16))
        size, kind = struct.unpack_from(">I4s", head)
        start = 8
        if size == 1:
            (size,), start = struct.unpack_from(">Q", head, 8), 16
        size = size or size_bytes - at
        if kind == b"moov" and start <= size <= size_bytes - at:
            return memoryview(bytes(read(at + start, size - start))), at + size
        if size < start or not kind.isalnum():
            break
        at += size
    raise _OtherTableError


def _is_video(moov: memoryview, trak: Span) -> bool:
    hdlr, _ = child(moov, trak, b"mdia", b"hdlr")
    return bytes(moov[hdlr + 8 : hdlr + 12]) == b"vide"


class _Trak:
    """Boxes of a track, and its tables."""

    def __init__(self, moov: memoryview, trak: Span, movie_scale: int) -> None:
        self.moov, self.span, self.movie_scale = moov, trak, movie_scale
        stbl = child(moov, trak, b"mdia", b"minf", b"stbl")
        self.tables = {kind: (start, end) for kind, _, start, end in boxes(moov, *stbl)}
        mdhd, _ = child(moov, trak, b"mdia", b"mdhd")
        (self.timescale,) = struct.unpack_from(">I", moov, mdhd + (20 if moov[mdhd] == 1 else 12))
        if not self.timescale or not movie_scale or _OTHER_TABLES & self.tables.keys():
            raise _OtherTableError

    def table(self, name: bytes, columns: int, dtype: str = ">u4", head: int = 4) -> Int64s:
        """Return the entries of a table of numbers, int64 (n, columns)."""
        if name not in self.tables:
            raise _OtherTableError
        start, end = self.tables[name]
        (count,) = struct.unpack_from(">I", self.moov, start + head)
        width = columns * np.dtype(dtype).itemsize
        if count * width > end - start - head - 4:
            raise _OtherTableError
        found = np.frombuffer(self.moov, dtype, count * columns, start + head + 4)
        return found.astype(np.int64).reshape(-1, columns)

    def edits(self) -> Iterator[tuple[int, int, int]]:
        """Yield the duration of each edit in the movie's time scale, its start in the track's, and its rate in
        2^-16.
        """
        try:
            start, _ = child(self.moov, self.span, b"edts", b"elst")
        except Mp4Error:
            return
        (count,) = struct.unpack_from(">I", self.moov, start + 4)
        form = ">Qqi" if self.moov[start] == 1 else ">Iii"
        for n in range(min(count, 3)):
            yield struct.unpack_from(form, self.moov, start + 8 + n * struct.calcsize(form))


def _index_tables(trak: _Trak, read: Bytes, size_bytes: int) -> FoundVideo:
    """Open the video of a track whose packets are listed in its tables."""
    track, size = _track(trak)
    packets, rate = _read_packets(trak)
    if (end := int((packets.start + packets.size).max())) > size_bytes:
        raise DataError(f"is truncated: its packets end at byte {end}, but it has {size_bytes} bytes")
    return _found(track, packets, rate, size, read)


def _index_fragmented(trak: _Trak, data: bytes, first: int) -> FoundVideo:
    """Open the video of the only track of a file whose fragments begin at byte `first`."""
    _, size = _track(trak)
    track = read_header(data[:first])
    rest = memoryview(data)[first:]
    packets = read_fragments(rest, track)
    if any(start not in (-1, 0) and start > packets.pts.min() for _, start, _ in trak.edits()):
        raise _OtherTableError
    packets = replace(packets, start=packets.start + first)
    starts = [first + at for kind, at, _, _ in boxes(rest, 0, len(rest)) if kind == b"moof"]
    read, _ = bytes_of(data)
    found = _found(track, packets, None, size, read)
    return replace(found, fragments=np.array([*starts, len(data)], np.int64))


def _track(trak: _Trak) -> tuple[Track, tuple[int, int]]:
    """Return the decoder's parameters, and the width and height of frames. Raises DataError for rotated frames."""
    tkhd, _ = child(trak.moov, trak.span, b"tkhd")
    a, b, _, c, d = struct.unpack_from(">iiiii", trak.moov, tkhd + (52 if trak.moov[tkhd] == 1 else 40))
    if b or c or a <= 0 or d <= 0:
        raise DataError(f"is rotated by its metadata, which is not corrected here; {_UNSUPPORTED}")
    moov, stsd = trak.moov, trak.tables[b"stsd"]
    if struct.unpack_from(">I", moov, stsd[0] + 4) != (1,):
        raise _OtherTableError
    entry, start, end = sample_entry(moov, stsd)
    codec = CODECS.get(entry)
    if codec not in _LEGAL:
        raise _OtherTableError
    extradata = b""
    if codec in EXTRADATA:
        first, stop = child(moov, (start + VISUAL_ENTRY_SIZE, end), EXTRADATA[codec])
        extradata = bytes(moov[first:stop])
    width, height = struct.unpack_from(">HH", moov, start + SIZE_IN_ENTRY)
    if codec == "h264":
        (length,) = struct.unpack_from(">H", extradata, 6)
        width, height = read_sps(extradata[8 : 8 + length]).shown
    return Track(track_id=1, codec=codec, extradata=extradata, timescale=trak.timescale), (width, height)


def _read_packets(trak: _Trak) -> tuple[Packets, Fraction | None]:
    """Return all packets, and the frame rate that the table of times declares."""
    uniform, count = struct.unpack_from(">II", trak.moov, trak.tables[b"stsz"][0] + 4)
    durations = trak.table(b"stts", 2)
    if uniform or not count or int(durations[:, 0].sum()) != count or durations.max() >= 1 << 31:
        raise _OtherTableError
    size = trak.table(b"stsz", 1, head=8)[:, 0]
    deltas = np.repeat(durations[:, 1], durations[:, 0])
    pts = np.cumsum(deltas) - deltas
    if b"ctts" in trak.tables:
        late = trak.table(b"ctts", 2, ">i4")
        if (late[:, 0] < 0).any() or int(late[:, 0].sum()) != count:
            raise _OtherTableError
        pts += np.repeat(late[:, 1], late[:, 0])
    keyframe = np.ones(count, dtype=np.bool_)
    if b"stss" in trak.tables:
        keys = trak.table(b"stss", 1)[:, 0] - 1
        if not len(keys) or keys.min() < 0 or keys.max() >= count:
            raise _OtherTableError
        keyframe[:] = False
        keyframe[keys] = True
    if size.min() == 0 or len(np.unique(pts)) < count or _is_hiding(trak, pts):
        raise _OtherTableError
    total = int(deltas.sum())
    return (
        Packets(start=_starts(trak, size), size=size, pts=pts, keyframe=keyframe),
        Fraction(trak.timescale * count, total) if total else None,
    )


def _is_hiding(trak: _Trak, pts: Int64s) -> bool:
    """Return True if the edit list does anything other than shift all frames in time."""
    edits = [edit for edit in trak.edits() if edit[1] != -1]
    if not edits:
        return False
    (length, start, rate), *others = edits
    end = start + Fraction(length * trak.timescale, trak.movie_scale)
    return bool(others) or rate != 1 << 16 or start > pts.min() or end <= pts.max()


def _starts(trak: _Trak, size: Int64s) -> Int64s:
    """Return the first byte of each packet in the file, from the table of chunks and of packets per chunk."""
    chunks = trak.table(b"stco", 1) if b"stco" in trak.tables else trak.table(b"co64", 1, ">i8")
    first, per, described = trak.table(b"stsc", 3).T
    runs = np.diff(first, append=len(chunks) + 1)
    if not len(first) or first[0] != 1 or runs.min() < 1 or (described != 1).any() or chunks.min() < 0:
        raise _OtherTableError
    if sum(a * b for a, b in zip(runs.tolist(), per.tolist(), strict=True)) != len(size):
        raise _OtherTableError
    counts = np.repeat(per, runs)
    before = np.cumsum(size) - size
    chunk = np.repeat(np.arange(len(chunks)), counts)
    of_chunk = before[np.minimum(np.cumsum(counts) - counts, len(size) - 1)]
    found: Int64s = chunks[:, 0][chunk] + before - of_chunk[chunk]
    return found


def _found(track: Track, packets: Packets, rate: Fraction | None, size: tuple[int, int], read: Bytes) -> FoundVideo:
    """Return the video whose packets start in the bytes that `read` returns."""
    if track.codec in _WITH_RECORD and (track.extradata or b"\0")[0] != 1:
        raise DataError(f"has {track.codec} without a configuration record; {_UNSUPPORTED}")
    keyframes = np.flatnonzero(packets.keyframe)
    if not len(keyframes):
        raise DataError("has no keyframe, so no frame can be decoded")
    packets = packets[keyframes[0] :]
    shown = packets.pts >= packets.pts[0]
    if packets.shown is not None:
        shown &= packets.shown
    ticks = np.sort(packets.pts[shown])
    if not len(ticks):
        raise DataError("has a video stream without frames")
    packets = replace(packets, pts=packets.pts - ticks[0], shown=shown)
    entries = candidates(packets, len(ticks))
    if not len(entries) or entries[0]:
        raise DataError("its first keyframe does not start a GOP that can be decoded on its own")
    fps = average_rate(ticks, Fraction(1, track.timescale), rate)
    index = index_of_packets(track.codec, packets, entries, fps, size)
    return FoundVideo(track=track, packets=packets, index=index, read=read)


def _demux_copy(data: bytes) -> FoundVideo:
    """Open the video of a file whose packets FFmpeg finds; they are copied out of it, one after another."""
    with open_media(data, "matroska" if data.startswith(_EBML) else "mov") as container:
        stream = next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)
        if stream is None or stream.codec_context is None:
            raise DataError("has no video stream that FFmpeg decodes")
        context, base = stream.codec_context, stream.time_base or Fraction(1, 90000)
        codec = context.codec.canonical_name
        if codec not in _LEGAL:
            raise DataError(f"is {codec}; expected {', '.join(_LEGAL)}; {_UNSUPPORTED}")
        track = Track(track_id=1, codec=codec, extradata=context.extradata or b"", timescale=base.denominator)
        rate, listed = stream.average_rate or stream.guessed_rate, "mov" in container.format.name
        n_listed = len(stream.index_entries) if listed else 0
        parts, rows = [], list[tuple[int, int, bool, bool, int]]()
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.is_corrupt or packet.pts is None:
                what = "is truncated or damaged" if packet.is_corrupt else "has packets without time stamps"
                raise DataError(f"{what}: {len(rows)} packets can be read; {_UNSUPPORTED}")
            place = len(rows) if packet.pos is None else packet.pos
            rows.append((packet.size, packet.pts, packet.is_keyframe, packet.is_discard, place))
            parts.append(bytes(packet))
    if len(rows) < n_listed:
        raise DataError(f"is truncated: {len(rows)} of {n_listed} packets can be read; the rest is missing")
    size, pts, keyframe, hidden, places = np.array(rows, np.int64).reshape(-1, 5).T
    if len(np.unique(pts)) < len(pts) or (np.diff(places) < 0).any():
        raise DataError(f"has packets that are out of order or repeated (by an edit list); {_UNSUPPORTED}")
    packets = Packets(
        start=np.cumsum(size) - size,
        size=size,
        pts=pts * base.numerator,
        keyframe=keyframe != 0,
        shown=hidden == 0,
    )
    read, _ = bytes_of(b"".join(parts))
    return _found(track, packets, rate, _read_first_size(data), read)


def _read_first_size(data: bytes) -> tuple[int, int]:
    """Return the width and height of the first frame. Raises DataError if frames cannot be displayed as they are."""
    with open_media(data, "matroska" if data.startswith(_EBML) else "mov") as container:
        for frame in container.decode(video=0):
            if frame.interlaced_frame or find_side_data(frame, Type.DISPLAYMATRIX) is not None:
                what = "interlaced" if frame.interlaced_frame else "rotated by its metadata"
                raise DataError(f"is {what}, which is not corrected here; {_UNSUPPORTED}")
            return frame.width, frame.height
    raise DataError("has a video stream without frames")
