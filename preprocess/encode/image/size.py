"""The size of a BMP, PNM or TIFF image by its header, before it is decoded.

Sources: Microsoft's BITMAPCOREHEADER and BITMAPINFOHEADER; Netpbm's pnm(5); TIFF 6.0, section 2, and BigTIFF.
"""

from __future__ import annotations

import re
import struct

from ..reject import RejectError

_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})")
_WIDTH, _HEIGHT = 256, 257


def declared_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels. Raises RejectError if the header is damaged, or of no form that is read."""
    try:
        if data[:2] == b"BM":
            return _bmp(data)
        if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _tiff(data)
    except struct.error as error:
        raise RejectError("open", "is truncated: its header ends early") from error
    found = _PNM.match(data)
    if found is None:
        raise RejectError("open", "is no JPEG, PNG, WebP, BMP, TIFF, PNM or DICOM file")
    return int(found[1]), int(found[2])


def _bmp(data: bytes) -> tuple[int, int]:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_bytes == 12 else "<ii", data, 18)
    return abs(width), abs(height)  # rows from top to bottom have a negative height


def _tiff(data: bytes) -> tuple[int, int]:
    order = "<" if data[:1] == b"I" else ">"
    is_big = b"+" in data[:4]
    (at,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", data, 8 if is_big else 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if is_big else 'H'}", data, at)
    first, entry_bytes = (at + 8, 20) if is_big else (at + 2, 12)
    found: dict[int, int] = {}
    for n in range(min(count, (len(data) - first) // entry_bytes)):
        tag, kind = struct.unpack_from(f"{order}HH", data, first + n * entry_bytes)
        if tag in (_WIDTH, _HEIGHT):
            value_at = first + n * entry_bytes + (12 if is_big else 8)
            (value,) = struct.unpack_from(f"{order}{ {3: 'H', 4: 'I', 16: 'Q'}.get(kind, 'I') }", data, value_at)
            found[tag] = max(value, found.get(tag, 0))
    if len(found) < 2:
        raise RejectError("open", "is no TIFF file: its header has no width and height")
    return found[_WIDTH], found[_HEIGHT]
