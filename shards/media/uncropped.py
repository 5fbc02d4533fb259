"""The header of an H.264 video without cropping: its decoder shows all that is coded, in multiples of 16 pixels.

A cache of GPU decoders that compares coded with shown sizes then finds its decoder again. The shown part stays where it
is, and no packet changes.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from .h264_sps import Sps, UnknownSpsError, read_sps, uncropped
from .mp4 import VISUAL_ENTRY_SIZE, Mp4Error, child, sample_entry

_SIZE_AT = 24
"""Where width and height stand in a visual sample entry (ISO 14496-12, 12.1.3)."""
_ABOVE = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")


def sps_of(extradata: bytes) -> list[Sps]:
    """The sequence parameter sets of an avcC (ISO 14496-15, 5.3.3.1). Raises UnknownSpsError if one cannot be read."""
    return [read_sps(unit) for unit in _units(extradata)[0]]


@lru_cache(maxsize=1024)
def uncropped_header(header: bytes) -> bytes:
    """The header `ftyp moov` of an H.264 video without cropping; unchanged if there is none, or at the left or top.

    Errors: Mp4Error if the boxes are no such header, UnknownSpsError if its parameter sets cannot be read.
    """
    data = memoryview(header)
    spans = [child(data, (0, len(header)), *_ABOVE[: n + 1]) for n in range(len(_ABOVE))]
    entry = sample_entry(data, spans[-1])[1:]
    avcc = child(data, (entry[0] + VISUAL_ENTRY_SIZE, entry[1]), b"avcC")
    extradata = header[slice(*avcc)]
    units, rest = _units(extradata)
    found = [read_sps(unit) for unit in units]
    if len({(one.width, one.height) for one in found}) != 1 or any(one.crop[0] or one.crop[2] for one in found):
        return header
    if not any(any(one.crop) for one in found):
        return header
    packed = b"".join(struct.pack(">H", len(unit)) + unit for unit in map(uncropped, units))
    changed = bytearray(header)
    changed[slice(*avcc)] = extradata[:6] + packed + rest
    struct.pack_into(">HH", changed, entry[0] + _SIZE_AT, found[0].width, found[0].height)
    for start, _ in (*spans, entry, avcc):
        _grow(changed, start, len(changed) - len(header))
    return bytes(changed)


def _units(extradata: bytes) -> tuple[list[bytes], bytes]:
    """The sequence parameter sets of an avcC, and what follows them."""
    try:
        units, at = [], 6
        for _ in range(extradata[5] & 31):
            size = int.from_bytes(extradata[at : at + 2], "big")
            units.append(extradata[at + 2 : at + 2 + size])
            at += 2 + size
    except IndexError as error:
        raise UnknownSpsError("avcC ends early") from error
    if not units or at > len(extradata):
        raise UnknownSpsError(f"avcC of {len(extradata)} bytes does not hold its parameter sets")
    return units, extradata[at:]


def _grow(data: bytearray, payload: int, by: int) -> None:
    """Adds `by` bytes to the size of the box whose payload starts at `payload`."""
    at = payload - 8
    size = struct.unpack_from(">I", data, at)[0]
    if size == 1 or size + by < 8:
        raise Mp4Error(f"a box of the header has the size {size} at byte {at}; sizes of 32 bits are legal there")
    struct.pack_into(">I", data, at, size + by)
