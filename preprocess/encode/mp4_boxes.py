"""The boxes of a fragmented MP4 that say where packets lie and when they are shown (ISO 14496-12, section 8.8)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]


def boxes(data: bytes, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, int, int, int]]:
    """The boxes in data[start:stop] as (type, start, start of the payload, end); ValueError where one is cut."""
    stop = len(data) if stop is None else stop
    while start < stop:
        if start + 8 > stop:
            raise ValueError(f"a box header is cut at byte {start}")
        size, kind = struct.unpack_from(">I4s", data, start)
        payload = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, payload)
            payload += 8
        end = start + size if size else stop
        if end < payload or end > stop:
            raise ValueError(f"box {kind!r} at byte {start} says {size} bytes, {stop - start} are left")
        yield kind.decode("latin-1"), start, payload, end
        start = end


def shown_at(data: bytes, moof: tuple[int, int]) -> Int64Array:
    """When the packets of a fragment are shown, in decoding order, in units of the track's time scale.

    `moof` is the payload of its moof box as (first byte, end). ValueError where it is not one track with a tfdt.
    """
    tracks = [(payload, end) for kind, _, payload, end in boxes(data, *moof) if kind == "traf"]
    if len(tracks) != 1:
        raise ValueError(f"a fragment has {len(tracks)} tracks, not 1")
    default_duration, decode_time, times = 0, None, []
    for kind, _, payload, _ in boxes(data, *tracks[0]):
        if kind == "tfhd":
            default_duration = _default_duration(data, payload)
        elif kind == "tfdt":
            (decode_time,) = struct.unpack_from(">Q" if data[payload] else ">I", data, payload + 4)
        elif kind == "trun" and decode_time is not None:
            durations, offsets = _run(data, payload, default_duration)
            times.append(decode_time + np.cumsum(durations) - durations + offsets)
            decode_time += int(durations.sum())
    if not times:
        raise ValueError("a fragment has no packets, or none with a time")
    return np.concatenate(times)


def _default_duration(data: bytes, tfhd: int) -> int:
    (flags,) = struct.unpack_from(">I", data, tfhd)
    before = 8 * bool(flags & 0x1) + 4 * bool(flags & 0x2)
    return int(struct.unpack_from(">I", data, tfhd + 8 + before)[0]) if flags & 0x8 else 0


def _run(data: bytes, trun: int, default_duration: int) -> tuple[Int64Array, Int64Array]:
    """Durations and composition offsets of a run of packets."""
    flags, count = struct.unpack_from(">II", data, trun)
    first = trun + 8 + 4 * bool(flags & 0x1) + 4 * bool(flags & 0x4)
    columns = [bit for bit in (0x100, 0x200, 0x400, 0x800) if flags & bit]
    table = np.frombuffer(data, ">i4", count * len(columns), first).reshape(count, len(columns)).astype(np.int64)
    by_bit = dict(zip(columns, table.T, strict=True))
    return by_bit.get(0x100, np.full(count, default_duration, np.int64)), by_bit.get(0x800, np.zeros(count, np.int64))
