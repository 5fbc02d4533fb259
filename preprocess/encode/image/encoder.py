"""Images for shards: a member `jpg`, `png`, `webp`, `ppm` or `pgm`, 8-bit grey or RGB, upright.

A source is decoded once, to check it. If it already is such an image, its bytes are stored unchanged, without loss or
growth. Otherwise it is re-encoded: as JPEG if the source was compressed with loss, else as PNG. That happens if

- Exif requires a rotation: it is applied, because loaders draw crops from the size alone;
- it has an alpha channel: transparent pixels become white;
- it has 16 bits or CMYK colours, or another format (BMP, TIFF, PNM, DICOM);
- a part of it is requested, or a short side that it exceeds.

`store="pixels"` converts every image to PPM, or PGM if it is grey.

Metadata (Exif, profiles) is preserved in unchanged bytes and lost otherwise; colour profiles (ICC) are not applied.
OpenCV decodes and encodes, because its wheels include libjpeg-turbo, libpng and libwebp, and loaders need it anyway
(reduced-size decoding).

The sizes of BMP, PNM and TIFF are read from their headers before they are decoded; a TIFF must be a single image.
Sources: Microsoft's BITMAPCOREHEADER and BITMAPINFOHEADER; Netpbm's pnm(5); TIFF 6.0, section 2, and BigTIFF.

An IDX file, the format of MNIST and its successors, has a header of four bytes (0, 0, the type of values, the number of
axes), the sizes of the axes as big-endian 32-bit numbers, then the values. Source: Y. LeCun, C. Cortes, C. Burges, The
MNIST database, "File formats".
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.encoder import Encoded
from maskstream.preprocess.encode.limits import check_image_size, check_source_file, read_source_file
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.arrays import UInt8s, UInt16s
from maskstream.shards.config import Config
from maskstream.shards.limits import Bounds, FiniteFloat, PositiveInt
from maskstream.shards.members.image import make_image_member

from .dicom import DICOM_SUFFIXES, Window, is_dicom, read_dicom_pixels
from .header import read_header

_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})")
_WIDTH, _HEIGHT, _COLOURS, _KIND, _OLD_KIND = 256, 257, 262, 254, 255
_READ = (_WIDTH, _HEIGHT, _COLOURS, _KIND, _OLD_KIND)
_RIGHT = (0, 1, 2, 3, 5, 6)
"""Colour types that OpenCV decodes correctly: grey, RGB, palette, CMYK, YCbCr."""
_WRONG = {4: "a mask", 8: "CIE L*a*b* colours", 9: "ICC L*a*b* colours", 10: "ITU L*a*b* colours"}
_REDUCED_OR_MASK, _OLD_REDUCED = 0b101, 2
"""Subfile types of pages that are a smaller version of another page, or its mask."""


def read_declared_size(data: bytes) -> tuple[int, int]:
    """Return the width and height in pixels that a BMP, TIFF or PNM file declares.

    Args:
        data: Bytes of the file.

    Raises:
        RejectError: The header is damaged or of an unsupported format, or the file is a TIFF with several pages or
            unsupported colours.
    """
    try:
        if data[:2] == b"BM":
            return _read_bmp_size(data)
        if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _read_tiff_size(data)
    except struct.error as error:
        raise RejectError("open", "is truncated: its header ends early") from error
    found = _PNM.match(data)
    if found is None:
        raise RejectError("open", "is not a JPEG, PNG, WebP, BMP, TIFF, PNM or DICOM file")
    return int(found[1]), int(found[2])


def _read_bmp_size(data: bytes) -> tuple[int, int]:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_bytes == 12 else "<ii", data, 18)
    return abs(width), abs(height)  # rows from top to bottom have a negative height


def _read_tiff_size(data: bytes) -> tuple[int, int]:
    """Return the size of the only page. Raise RejectError if there are several, or if OpenCV would misread the
    colours.
    """
    order = "<" if data[:1] == b"I" else ">"
    is_big = b"+" in data[:4]
    (at,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", data, 8 if is_big else 4)
    found, at = _read_page(data, at, order, is_big)
    if found.keys() < {_WIDTH, _HEIGHT}:
        raise RejectError("open", "is not a TIFF file: its header has no width and height")
    if (colours := found.get(_COLOURS, 2)) not in _RIGHT:
        raise RejectError(
            "check", f"has {_WRONG.get(colours, f'the colours {colours} of TIFF')}, not grey, RGB, a palette or CMYK"
        )
    seen = set[int]()
    while at and at not in seen:
        seen.add(at)
        page, at = _read_page(data, at, order, is_big)
        if not (page.get(_KIND, 0) & _REDUCED_OR_MASK or page.get(_OLD_KIND) == _OLD_REDUCED):
            raise RejectError("check", "has several pages, not one image")
    return found[_WIDTH], found[_HEIGHT]


def _read_page(data: bytes, at: int, order: str, is_big: bool) -> tuple[dict[int, int], int]:
    """Return the values of the page whose header is at a byte, and the position of the next header; 0 after the
    last.
    """
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


IMAGE_SUFFIXES = DICOM_SUFFIXES | frozenset(
    {".bmp", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Suffixes of files that are searched; the format of a file is decided by its first bytes."""

_STRIP = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedPicture:
    """A decoded image file.

    Attributes:
        pixels: uint8 (H, W) grey or (H, W, 3) BGR, upright.
        form: jpg, png or webp if `data` decodes to exactly these pixels in any reader, else None.
        lossy: Whether the file was compressed with loss.
        data: Bytes of the file.
    """

    pixels: UInt8s
    form: str | None
    lossy: bool
    data: bytes


def read_picture(path: Path, window: Window | None = None) -> DecodedPicture:
    """Decode an image file.

    Alpha is blended over white, 16 bits become 8, and CMYK becomes RGB as in libjpeg-turbo.

    Args:
        path: File to read.
        window: Window of grey DICOM files (dicom.py); None for the file's own.

    Raises:
        RejectError: The file is damaged, truncated, an animation, or has too many pixels (`Limits`).
    """
    data = read_source_file(path)
    if is_dicom(data):
        pixels, lossy = read_dicom_pixels(data, window)
        return DecodedPicture(pixels=pixels, form=None, lossy=lossy, data=data)
    header = read_header(data)
    if header is not None and header.animated:
        raise RejectError("check", f"is an animation ({header.form}), not one image")
    check_image_size(*((header.width, header.height) if header is not None else read_declared_size(data)))
    stored = _decoded(data)
    pixels = _blend_over_white(_round_to_eight_bits(stored))
    if header is None:
        return DecodedPicture(pixels=pixels, form=None, lossy=False, data=data)
    if pixels.shape[:2] != (header.height, header.width):
        raise RejectError(
            "decode",
            f"decodes to {pixels.shape[1]}x{pixels.shape[0]} pixels, but declares {header.width}x{header.height}",
        )
    upright = turned(pixels, header.orientation)
    kept = header.orientation == 1 and not header.cmyk and stored.dtype == np.uint8 and pixels.shape == stored.shape
    return DecodedPicture(pixels=upright, form=header.form if kept else None, lossy=header.lossy, data=data)


def read_alpha(path: Path) -> UInt8s | None:
    """Return the alpha channel of an image that `read_picture` has read, uint8 (H, W), 255 for opaque pixels.

    None if the file has no alpha channel, is DICOM, or is rotated by Exif.
    """
    data = path.read_bytes()
    if is_dicom(data):
        return None
    header = read_header(data)
    stored = _round_to_eight_bits(_decoded(data))
    upright = header is None or header.orientation == 1
    return np.ascontiguousarray(stored[:, :, 3]) if stored.ndim == 3 and stored.shape[2] == 4 and upright else None


def turned(pixels: UInt8s, orientation: int) -> UInt8s:
    """Rotate or flip stored pixels by Exif's orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def encoded(pixels: UInt8s, form: str, quality: int) -> bytes:
    """Encode pixels as a file.

    Args:
        pixels: uint8 (H, W) or (H, W, 3) BGR.
        form: jpg, or without loss png, ppm or pgm.
        quality: Quality of JPEG, up to 100.

    Raises:
        RejectError: OpenCV cannot write the file.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if form == "jpg" else []
    try:
        ok, data = cv2.imencode(f".{form}", pixels, options)
    except cv2.error as error:
        raise RejectError("encode", f"cannot be written as {form} ({_format_reason(error)})") from error
    if not ok:
        raise RejectError("encode", f"cannot be written as {form}")
    return data.tobytes()


def _decoded(data: bytes) -> UInt8s | UInt16s:
    """Return the pixels as stored: (H, W) or (H, W, 3 or 4), 8 or 16 bits."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise RejectError("decode", f"cannot be decoded ({_format_reason(error)})") from error
    if pixels is None:
        raise RejectError("decode", "cannot be decoded: it is damaged, or not supported by OpenCV")
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    if pixels.dtype == np.uint16:
        return pixels.astype(np.uint16, copy=False)
    raise RejectError("check", f"has {pixels.dtype} values; images must have 8 or 16 bits")


def _round_to_eight_bits(pixels: UInt8s | UInt16s) -> UInt8s:
    """Round 16 bits to 8 bits so that the largest value is preserved."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return _convert_in_strips(lambda rows: ((rows.astype(np.uint32) + 128) // 257).astype(np.uint8), pixels)


def _blend_over_white(pixels: UInt8s) -> UInt8s:
    """Convert four channels to three: transparent pixels become white."""
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels
    if pixels.shape[2] == 1:
        return pixels[:, :, 0]
    return _convert_in_strips(_blend_rows_over_white, pixels)


def _blend_rows_over_white(pixels: UInt8s) -> UInt8s:
    alpha = pixels[:, :, 3:].astype(np.uint16)  # which holds 255 * 255 + 127
    colours = pixels[:, :, :3].astype(np.uint16) * alpha + 255 * (255 - alpha)
    return ((colours + 127) // 255).astype(np.uint8)


def _convert_in_strips(convert: Callable[[npt.NDArray[Any]], UInt8s], pixels: npt.NDArray[Any]) -> UInt8s:
    """Apply `convert` to strips of rows, because its intermediate values are wider than the pixels."""
    strips = [convert(pixels[row : row + _STRIP]) for row in range(0, len(pixels), _STRIP)]
    return strips[0] if len(strips) == 1 else np.concatenate(strips)


def _format_reason(error: cv2.error) -> str:
    """Return OpenCV's message on one line."""
    return " ".join(str(error).split())[:200]


_UINT8 = 0x08


def read_idx_image(path: Path, number: int) -> DecodedPicture:
    """Read an image of an uncompressed IDX file of grey images, uint8 (images, height, width).

    Args:
        path: IDX file.
        number: Number of the image, from 0.

    Raises:
        RejectError: The file has another format, or no such image.
    """
    check_source_file(path)
    try:
        with path.open("rb") as file:
            header = file.read(16)
            if len(header) < 16 or header[:4] != bytes((0, 0, _UINT8, 3)):
                raise RejectError("open", "is not an IDX file of grey images: uint8, three axes")
            count, height, width = struct.unpack(">III", header[4:])
            check_image_size(width, height)
            if not 0 <= number < count:
                raise RejectError("open", f"has {count} images, but no image {number}")
            file.seek(16 + number * height * width)
            data = file.read(height * width)
    except OSError as error:
        raise RejectError("open", f"cannot be read: {error.strerror}") from error
    if len(data) < height * width:
        raise RejectError("decode", f"is truncated: image {number} has {len(data)} of {height * width} bytes")
    pixels: UInt8s = np.frombuffer(data, np.uint8).reshape(height, width)
    return DecodedPicture(pixels=pixels, form=None, lossy=False, data=data)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageEncoder(Config):
    """Encodes images (see the module's docstring).

    Attributes:
        short_side: Images whose shorter side is longer are shrunk to it by area averaging; None keeps all sizes.
        quality: Quality of re-encoded JPEGs, 1 to 100.
        window: Centre and width of the displayed grey values of DICOM files, such as (40, 400) Hounsfield units; None
            for each file's own window.
        store: "compressed", or "pixels" for PPM or PGM: many times larger, but without decoding.
    """

    modality: ClassVar[str] = "image"

    short_side: PositiveInt | None = None
    quality: Annotated[int, Bounds(min=1, max=100)] = 95
    window: tuple[FiniteFloat, Annotated[float, Bounds(min=1, below=inf)]] | None = None
    store: Literal["compressed", "pixels"] = "compressed"

    @property
    def profile(self) -> str:
        """The only profile: image."""
        return "image"

    def encode(self, source: Source) -> Encoded:
        """Encode an image, or the part meta["crop"] (x, y, width, height) of the upright image.

        Args:
            source: Source to encode; with a window (n, n + 1) it is image n of an IDX file.

        Raises:
            RejectError: The image cannot be used.
        """
        if source.window is None:
            picture = read_picture(source.path, self.window)
        else:
            picture = read_idx_image(source.path, source.window[0])
        crop = source.meta.get("crop")
        pixels = picture.pixels if crop is None else part(picture.pixels, *crop)
        pixels = self._shrink_pixels(pixels)
        height, width = pixels.shape[:2]
        form, data = picture.form, picture.data
        kept = form is not None and pixels.shape == picture.pixels.shape and crop is None
        if self.store == "pixels":
            form, kept = "pgm" if pixels.ndim == 2 else "ppm", False
        elif form is None or not kept:
            form = "jpg" if picture.lossy else "png"
        return Encoded(
            members={form: make_image_member(data if kept else encoded(pixels, form, self.quality), width, height)},
            meta={"width": width, "height": height, "kept": kept},
            pixels=pixels,
        )

    def _shrink_pixels(self, pixels: UInt8s) -> UInt8s:
        """Shrink the pixels to the requested short side, if they exceed it."""
        height, width = pixels.shape[:2]
        if self.short_side is None or min(height, width) <= self.short_side:
            return pixels
        scale = self.short_side / min(height, width)
        size = (max(round(width * scale), self.short_side), max(round(height * scale), self.short_side))
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype("uint8", copy=False)


def part(pixels: UInt8s, x: int, y: int, width: int, height: int) -> UInt8s:
    """Return a part of an image.

    Args:
        pixels: (H, W, ...).
        x: Left edge.
        y: Top edge.
        width: Width in pixels.
        height: Height in pixels.

    Raises:
        RejectError: The part is not inside the image.
    """
    if not (0 <= x < x + width <= pixels.shape[1] and 0 <= y < y + height <= pixels.shape[0]):
        raise RejectError(
            "check",
            f"has {pixels.shape[1]}x{pixels.shape[0]} pixels, so it contains no {width}x{height} region at {x}, {y}",
        )
    return pixels[y : y + height, x : x + width]
