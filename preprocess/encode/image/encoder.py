"""Pictures for shards: a member `jpg`, `png`, `webp`, `ppm` or `pgm`, 8-bit grey or RGB, upright.

A source is decoded once, to check it. Where it already is such a picture its bytes go into the shard untouched: nothing
is lost, and it stays as small as it was. Else it is encoded anew: as JPEG where the source was compressed with loss, as
PNG where it was not. That is so where

- Exif says that it is to be turned: it is, for a loader draws crops from the size alone;
- it has an alpha channel: what is transparent becomes white;
- it has 16 bits or inks (CMYK), or is of another form (BMP, TIFF, PNM, DICOM);
- a part of it is asked for, or a short side that it exceeds.

`store="pixels"` makes a PPM of every picture, or a PGM of a grey one, whatever it was.

Metadata (Exif, profiles) stays in bytes that are kept and is lost where they are not; colours are taken as they are:
profiles (ICC) are not applied. OpenCV decodes and encodes, for its wheels bring libjpeg-turbo, libpng and libwebp and
it is needed by the loader anyway (reduced-size decoding).

The sizes of BMP, PNM and TIFF are read from their headers, before they are decoded, and whether a TIFF is one picture.
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
from maskstream.shards.config import Config
from maskstream.shards.limits import Bounds, FiniteFloat, PositiveInt
from maskstream.shards.members.image import make_image_member

from .dicom import DICOM_SUFFIXES, Window, is_dicom, read_dicom_pixels
from .header import read_header

_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})")
_WIDTH, _HEIGHT, _COLOURS, _KIND, _OLD_KIND = 256, 257, 262, 254, 255
_READ = (_WIDTH, _HEIGHT, _COLOURS, _KIND, _OLD_KIND)
_RIGHT = (0, 1, 2, 3, 5, 6)
"""Colours that are decoded as they are meant: grey, RGB, a palette, inks, YCbCr."""
_WRONG = {4: "a mask", 8: "CIE L*a*b* colours", 9: "ICC L*a*b* colours", 10: "ITU L*a*b* colours"}
_REDUCED_OR_MASK, _OLD_REDUCED = 0b101, 2
"""Pages that are another page at a smaller size, or its mask."""


def read_declared_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels. Raises RejectError if the header is damaged, of no form that is read, or that of a
    TIFF of several pages or other colours.
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
    """The size of the only page. RejectError for several, and for colours that OpenCV takes for others."""
    order = "<" if data[:1] == b"I" else ">"
    is_big = b"+" in data[:4]
    (at,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", data, 8 if is_big else 4)
    found, at = _read_page(data, at, order, is_big)
    if found.keys() < {_WIDTH, _HEIGHT}:
        raise RejectError("open", "is not a TIFF file: its header has no width and height")
    if (colours := found.get(_COLOURS, 2)) not in _RIGHT:
        raise RejectError(
            "check", f"has {_WRONG.get(colours, f'the colours {colours} of TIFF')}, not grey, RGB, a palette or inks"
        )
    seen = set[int]()
    while at and at not in seen:
        seen.add(at)
        page, at = _read_page(data, at, order, is_big)
        if not (page.get(_KIND, 0) & _REDUCED_OR_MASK or page.get(_OLD_KIND) == _OLD_REDUCED):
            raise RejectError("check", "has several pages; a picture is one")
    return found[_WIDTH], found[_HEIGHT]


def _read_page(data: bytes, at: int, order: str, is_big: bool) -> tuple[dict[int, int], int]:
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


UInt8s = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = DICOM_SUFFIXES | frozenset(
    {".bmp", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""The endings of files that are looked for; what a file holds is decided by its first bytes."""

_STRIP = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedPicture:
    """A decoded file. pixels: uint8 (H, W) grey or (H, W, 3) in OpenCV's order (blue first), upright. form: jpg, png or
    webp where `data`, the file's bytes, decodes to just these pixels with any reader, else None. lossy: whether the
    file was compressed with loss.
    """

    pixels: UInt8s
    form: str | None
    lossy: bool
    data: bytes


def read_picture(path: Path, window: Window | None = None) -> DecodedPicture:
    """The picture in a file; RejectError where it cannot be used, saying why. window: of grey DICOM files (dicom.py).

    Alpha is laid over white, 16 bits become 8, inks (CMYK) become RGB as libjpeg-turbo converts them. Animations, files
    without their end and too many pixels (`Limits`) are rejected.
    """
    data = read_source_file(path)
    if is_dicom(data):
        pixels, lossy = read_dicom_pixels(data, window)
        return DecodedPicture(pixels=pixels, form=None, lossy=lossy, data=data)
    header = read_header(data)
    if header is not None and header.animated:
        raise RejectError("check", f"is an animation ({header.form}); a picture is one frame")
    check_image_size(*((header.width, header.height) if header is not None else read_declared_size(data)))
    stored = _decoded(data)
    pixels = _blend_over_white(_round_to_eight_bits(stored))
    if header is None:
        return DecodedPicture(pixels=pixels, form=None, lossy=False, data=data)
    if pixels.shape[:2] != (header.height, header.width):
        raise RejectError(
            "decode", f"decodes to {pixels.shape[1]}x{pixels.shape[0]} pixels, says {header.width}x{header.height}"
        )
    upright = turned(pixels, header.orientation)
    kept = header.orientation == 1 and not header.cmyk and stored.dtype == np.uint8 and pixels.shape == stored.shape
    return DecodedPicture(pixels=upright, form=header.form if kept else None, lossy=header.lossy, data=data)


def read_alpha(path: Path) -> UInt8s | None:
    """The alpha channel of a picture that `read_picture` has read, uint8 (H, W), 255 where it covers; None without one.

    Only files that are not turned by Exif have it here; of others it is None.
    """
    data = path.read_bytes()
    if is_dicom(data):
        return None
    header = read_header(data)
    stored = _round_to_eight_bits(_decoded(data))
    upright = header is None or header.orientation == 1
    return np.ascontiguousarray(stored[:, :, 3]) if stored.ndim == 3 and stored.shape[2] == 4 and upright else None


def turned(pixels: UInt8s, orientation: int) -> UInt8s:
    """Stored pixels as Exif's orientation 1 to 8 says that they are to be seen."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def encoded(pixels: UInt8s, form: str, quality: int) -> bytes:
    """Pixels as a file of the form jpg (of a quality up to 100), or without loss png, ppm or pgm."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if form == "jpg" else []
    try:
        ok, data = cv2.imencode(f".{form}", pixels, options)
    except cv2.error as error:
        raise RejectError("encode", f"cannot be written as {form} ({_format_reason(error)})") from error
    if not ok:
        raise RejectError("encode", f"cannot be written as {form}")
    return data.tobytes()


def _decoded(data: bytes) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """The pixels as stored: (H, W) or (H, W, 3 or 4), of 8 or 16 bits."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise RejectError("decode", f"cannot be decoded ({_format_reason(error)})") from error
    if pixels is None:
        raise RejectError("decode", "cannot be decoded: it is damaged, or no picture that OpenCV reads")
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    if pixels.dtype == np.uint16:
        return pixels.astype(np.uint16, copy=False)
    raise RejectError("check", f"holds {pixels.dtype} values; pictures have 8 or 16 bits")


def _round_to_eight_bits(pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> UInt8s:
    """16 bits to 8, rounded, so that the greatest value stays the greatest."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return _convert_in_strips(lambda rows: ((rows.astype(np.uint32) + 128) // 257).astype(np.uint8), pixels)


def _blend_over_white(pixels: UInt8s) -> UInt8s:
    """Four channels to three: what is transparent shows white."""
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
    """What `convert` makes of some rows after the other, for its numbers in between are wider than the pixels."""
    strips = [convert(pixels[row : row + _STRIP]) for row in range(0, len(pixels), _STRIP)]
    return strips[0] if len(strips) == 1 else np.concatenate(strips)


def _format_reason(error: cv2.error) -> str:
    """OpenCV's own words, on one line."""
    return " ".join(str(error).split())[:200]


_UINT8 = 0x08


def read_idx_image(path: Path, number: int) -> DecodedPicture:
    """Image `number`, from 0, of an uncompressed IDX file of grey images, uint8 (images, height, width).

    Raises RejectError for a file of another kind, or without that image.
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
                raise RejectError("open", f"has {count} images and no image {number}")
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
    """short_side: a picture whose shorter side is longer than so many pixels is shrunk to it, averaged over area; None
    keeps all sizes. quality: of JPEGs that are encoded anew, 1 to 100. window: centre and width of the grey values of
    DICOM files that are shown, such as (40, 400) Hounsfield units; None takes the window of each file. store:
    "compressed", or "pixels", of which a PPM or PGM file is made: many times the bytes, and nothing to decode.
    """

    modality: ClassVar[str] = "image"

    short_side: PositiveInt | None = None
    quality: Annotated[int, Bounds(min=1, max=100)] = 95
    window: tuple[FiniteFloat, Annotated[float, Bounds(min=1, below=inf)]] | None = None
    store: Literal["compressed", "pixels"] = "compressed"

    @property
    def profile(self) -> str:
        """There is one."""
        return "image"

    def encode(self, source: Source) -> Encoded:
        """The picture of a source, of which its meta["crop"] (x, y, width, height of the upright one) is a part.

        A source with a window (n, n + 1) is image n of an IDX file.
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
        """The pixels with the short side that is asked for, or as they are."""
        height, width = pixels.shape[:2]
        if self.short_side is None or min(height, width) <= self.short_side:
            return pixels
        scale = self.short_side / min(height, width)
        size = (max(round(width * scale), self.short_side), max(round(height * scale), self.short_side))
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype("uint8", copy=False)


def part(pixels: UInt8s, x: int, y: int, width: int, height: int) -> UInt8s:
    """A part of a picture; RejectError where the picture does not hold all of it."""
    if not (0 <= x < x + width <= pixels.shape[1] and 0 <= y < y + height <= pixels.shape[0]):
        raise RejectError(
            "check", f"has {pixels.shape[1]}x{pixels.shape[0]} pixels and no part {width}x{height} at {x}, {y}"
        )
    return pixels[y : y + height, x : x + width]
