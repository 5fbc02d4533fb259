"""The size of a BMP, PNM or TIFF image by its header, before it is decoded, and whether a TIFF is one picture.

Sources: Microsoft's BITMAPCOREHEADER and BITMAPINFOHEADER; Netpbm's pnm(5); TIFF 6.0, section 2, and BigTIFF.
"""

from __future__ import annotations

import re
import struct

from ...source import RejectError

_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})")
_WIDTH, _HEIGHT, _COLOURS, _KIND, _OLD_KIND = 256, 257, 262, 254, 255
_READ = (_WIDTH, _HEIGHT, _COLOURS, _KIND, _OLD_KIND)
_RIGHT = (0, 1, 2, 3, 5, 6)
"""Colours that are decoded as they are meant: grey, RGB, a palette, inks, YCbCr."""
_WRONG = {4: "a mask", 8: "CIE L*a*b* colours", 9: "ICC L*a*b* colours", 10: "ITU L*a*b* colours"}
_REDUCED_OR_MASK, _OLD_REDUCED = 0b101, 2
"""Pages that are another page at a smaller size, or its mask."""


def declared_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels. Raises RejectError if the header is damaged, of no form that is read, or that of a
    TIFF of several pages or other colours.
    """
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
    """The size of the only page. RejectError for several, and for colours that OpenCV takes for others."""
    order = "<" if data[:1] == b"I" else ">"
    is_big = b"+" in data[:4]
    (at,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", data, 8 if is_big else 4)
    found, at = _page(data, at, order, is_big)
    if found.keys() < {_WIDTH, _HEIGHT}:
        raise RejectError("open", "is no TIFF file: its header has no width and height")
    if (colours := found.get(_COLOURS, 2)) not in _RIGHT:
        raise RejectError(
            "check", f"has {_WRONG.get(colours, f'the colours {colours} of TIFF')}, not grey, RGB, a palette or inks"
        )
    seen = set[int]()
    while at and at not in seen:
        seen.add(at)
        page, at = _page(data, at, order, is_big)
        if not (page.get(_KIND, 0) & _REDUCED_OR_MASK or page.get(_OLD_KIND) == _OLD_REDUCED):
            raise RejectError("check", "has several pages; a picture is one")
    return found[_WIDTH], found[_HEIGHT]


def _page(data: bytes, at: int, order: str, is_big: bool) -> tuple[dict[int, int], int]:
    """The values of the page whose header is at a byte, and where that of the next one is; 0 after the last."""
    (count,) = struct.unpack_from(f"{order}{'Q' if is_big else 'H'}", data, at)
    first, entry_bytes = (at + 8, 20) if is_big else (at + 2, 12)
    found: dict[int, int] = {}
    for n in range(min(count, (len(data) - first) // entry_bytes)):
        tag, kind = struct.unpack_from(f"{order}HH", data, first + n * entry_bytes)
        if tag in _READ:
            value_at = first + n * entry_bytes + (12 if is_big else 8)
            (value,) = struct.unpack_from(f"{order}{ {3: 'H', 4: 'I', 16: 'Q'}.get(kind, 'I') }", data, value_at)
            found[tag] = max(value, found.get(tag, 0))
    end, offset = first + count * entry_bytes, struct.Struct(f"{order}{'Q' if is_big else 'I'}")
    return found, offset.unpack_from(data, end)[0] if end + offset.size <= len(data) else 0
