"""The format and size of an image from its first bytes, so that memory is allocated only for the expected number of
pixels.

Sources: ITU-T T.81 B.1, PNG 5, RFC 9649; Netpbm's ppm(5) and pgm(5).
"""

import re
import struct

from maskstream.shards.errors import DataError

from .limits import MAX_PIXELS

_FORMS = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png", b"RIFF": "webp", b"P6": "ppm", b"P5": "pgm"}
VALUES = {"ppm": 3, "pgm": 1}
"""Bytes per pixel of the uncompressed formats; all pixels are at the end of the file."""
_NETPBM = re.compile(rb"P[56]\s+(\d{1,9})\s+(\d{1,9})\s+255\s")
_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN = b"\xff\xda"
_MAX_SCANS = 200
_BYTES_PER_STRAY = 1 << 14
"""Metadata may contain the bytes of a scan marker by chance, once in 64 KiB."""


def detect_image_form(data: bytes) -> str | None:
    """Return jpg, png, webp, ppm or pgm, from the first bytes of an image; None for other formats."""
    form = next((form for magic, form in _FORMS.items() if data.startswith(magic)), None)
    return None if form == "webp" and data[8:12] != b"WEBP" else form


def check_image(data: bytes, width: int, height: int) -> None:
    """Raise DataError unless the image's own header declares width x height pixels, and they can be decoded."""
    form = detect_image_form(data)
    if form is None:
        raise DataError(f"is not a JPEG, PNG, WebP, PPM or PGM file: it begins with {data[:8]!r}")
    if not 0 < width * height <= MAX_PIXELS or width < 1:
        raise DataError(f"has {width}x{height} pixels in the manifest; expected 1 to {MAX_PIXELS}")
    try:
        found = {
            "jpg": _read_jpeg_size,
            "png": _read_png_size,
            "webp": _read_webp_size,
            "ppm": _read_netpbm_size,
            "pgm": _read_netpbm_size,
        }[form](data)
    except (struct.error, IndexError) as error:
        raise DataError(f"is truncated: its {form} header ends early") from error
    if found != (width, height):
        raise DataError(f"has {found[0]}x{found[1]} pixels, not {width}x{height}")


def _read_jpeg_size(data: bytes) -> tuple[int, int]:
    """The size, at the first scan. Each of several scans costs a pass over all pixels, so they are counted."""
    at, size, components, progressive = 2, (0, 0), 0, False
    while True:
        if data[at] != 0xFF:
            raise DataError(f"is not a JPEG file: there is no marker at byte {at}")
        marker, at = data[at + 1], at + 2
        if marker == 0xFF:  # a fill byte
            at -= 1
        elif marker in (0xD9, 0xDA):
            if not components:
                raise DataError("is not a JPEG file: it has no frame before its first scan")
            several = progressive or data[at + 2] < components
            if several and (scans := data.count(_SCAN)) > _MAX_SCANS + len(data) // _BYTES_PER_STRAY:
                raise DataError(f"has {scans} scans; at most {_MAX_SCANS} are allowed")
            return size
        elif marker in _FRAME_HEADERS:
            height, width, components = struct.unpack_from(">HHB", data, at + 3)
            size, progressive = (width, height), marker & 3 == 2
            at += max(struct.unpack_from(">H", data, at)[0], 2)
        elif marker != 0x01 and not 0xD0 <= marker <= 0xD7:
            at += max(struct.unpack_from(">H", data, at)[0], 2)


def _read_png_size(data: bytes) -> tuple[int, int]:
    kind, width, height = struct.unpack_from(">4sII", data, 12)
    if kind != b"IHDR":
        raise DataError("is not a PNG file: it does not begin with its header")
    return width, height


def _read_webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        if data[20] & 0x02:
            raise DataError("is an animation; expected a single image")
        return (int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise DataError(f"is not a WebP file: its first chunk is {kind!r}")


def _read_netpbm_size(data: bytes) -> tuple[int, int]:
    """Return the size of a file that contains exactly one image of 8-bit values."""
    header = _NETPBM.match(data)
    if header is None:
        raise DataError(f"is not an 8-bit PPM or PGM file: it begins with {data[:24]!r}")
    width, height = int(header[1]), int(header[2])
    expected = header.end() + width * height * (3 if data[1:2] == b"6" else 1)
    if len(data) != expected:
        raise DataError(f"has {len(data)} bytes, but its header declares {expected}")
    return width, height
