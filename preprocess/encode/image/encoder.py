"""Pictures for shards: a member `jpg`, `png` or `webp`, 8-bit grey or RGB, upright.

A source is decoded once, to check it. Where it already is such a picture its bytes go into the shard untouched: nothing
is lost, and it stays as small as it was. Else it is encoded anew: as JPEG where the source was compressed with loss, as
PNG where it was not. That is so where

- Exif says that it is to be turned: it is, for a loader draws crops from the size alone;
- it has an alpha channel: what is transparent becomes white;
- it has 16 bits or inks (CMYK), or is of another form (BMP, TIFF, PNM, DICOM);
- a part of it is asked for, or a short side that it exceeds.

Metadata (Exif, profiles) stays in bytes that are kept and is lost where they are not; colours are taken as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

import cv2

from maskstream.preprocess.encode.encoder import Encoded
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.config import Config
from maskstream.shards.members.image import image_member

from .picture import UInt8s, encoded, read_idx_image, read_picture


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageEncoder(Config):
    """short_side: a picture whose shorter side is longer than so many pixels is shrunk to it, averaged over area; None
    keeps all sizes. quality: of JPEGs that are encoded anew, 1 to 100. window: centre and width of the grey values of
    DICOM files that are shown, such as (40, 400) Hounsfield units; None takes the window of each file.
    """

    modality: ClassVar[str] = "image"

    short_side: int | None = None
    quality: int = 95
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.short_side is not None and self.short_side < 1:
            raise ValueError(f"short_side is a number of pixels, 1 or more, or None, got {self.short_side}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is JPEG's, 1 to 100, got {self.quality}")
        if self.window is not None and not (all(map(isfinite, self.window)) and self.window[1] >= 1):
            raise ValueError(f"window is centre and width, 1 or more, of grey values, or None, got {self.window}")

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
        pixels = self._shrunk(pixels)
        height, width = pixels.shape[:2]
        form, data = picture.form, picture.data
        kept = form is not None and pixels.shape == picture.pixels.shape and crop is None
        if form is None or not kept:
            form = "jpg" if picture.lossy else "png"
            data = encoded(pixels, form, self.quality)
        return Encoded(
            members={form: image_member(data, width, height)},
            meta={"width": width, "height": height, "kept": kept},
        )

    def _shrunk(self, pixels: UInt8s) -> UInt8s:
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
