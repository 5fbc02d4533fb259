"""Decode an image at the lowest resolution that its crops need, and resize the crops.

libjpeg-turbo, which OpenCV's wheels contain, decodes a JPEG at 1/2, 1/4 or 1/8 of its size with a smaller inverse DCT
of each 8 x 8 block. That is much faster, and close to averaging the full image over areas. It is used if the reduced
crop still has at least as many pixels as the output. PNG and WebP are always decoded at full size. OpenCV returns RGB
directly, since libjpeg-turbo writes both colour orders equally fast. PPM and PGM are uncompressed: their bytes are the
pixels.

A crop of an image decoded at 1/n is extended to multiples of n, so that it has whole pixels in the reduced image. It
grows by less than n pixels on each side, which is less than one pixel of the output.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from maskstream.pipelines.augment.crop import Crop
from maskstream.shards.arrays import UInt8s
from maskstream.shards.errors import DataError
from maskstream.shards.media.image_header import VALUES, check_image, detect_image_form

_FLAGS = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2,  # with a colour flag, IMREAD_REDUCED_COLOR_2
    4: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
REDUCIBLE = ("jpg", "jpeg")
"""Extensions of members that can be decoded at reduced resolution."""
PIXELS_VERSION = 2
"""Version of the resize, part of a loader's identity; version 1 was OpenCV's area averaging, or bicubic."""


class ImageError(DataError):
    """A member cannot be decoded, or its size differs from the manifest's."""


def reduction(crops: Sequence[Crop], width: int, height: int) -> int:
    """Return the largest n of 1, 2, 4 and 8 at which each crop, decoded at 1/n, still has at least width x height
    pixels.
    """
    columns, rows = min(crop.width for crop in crops), min(crop.height for crop in crops)
    return max(n for n in _FLAGS if n == 1 or (columns // n >= width and rows // n >= height))


def extend_to_grid(crop: Crop, n: int, width: int, height: int) -> Crop:
    """Extend a crop of an image of width x height pixels to multiples of n or to the edge of the image."""
    x, y = crop.x // n * n, crop.y // n * n
    right = min(-(-(crop.x + crop.width) // n) * n, width)
    bottom = min(-(-(crop.y + crop.height) // n) * n, height)
    return Crop(x=x, y=y, width=right - x, height=bottom - y, flip=crop.flip)


def decode_image(data: bytes, width: int, height: int, n: int = 1) -> UInt8s:
    """Decode an image of width x height pixels at 1/n of its size: uint8 (ceil(height / n), ceil(width / n), 3), RGB.

    Raises:
        DataError: It cannot be decoded, or has another size; its header is compared first.
    """
    check_image(data, width, height)
    if (values := VALUES.get(detect_image_form(data) or "")) is not None:
        if n > 1:
            raise ImageError(f"has a JPEG name but contains Netpbm {data[:2]!r}")
        stored = np.frombuffer(data, np.uint8)[-width * height * values :].reshape(height, width, values)
        return stored if values == 3 else np.repeat(stored, 3, axis=2)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS[n])
    except cv2.error as error:
        raise ImageError(f"cannot be decoded ({' '.join(str(error).split())[:200]})") from error
    if pixels is None:
        raise ImageError("cannot be decoded")
    wanted = (-(-height // n), -(-width // n), 3)
    if pixels.shape != wanted:
        raise ImageError(f"decodes to {pixels.shape} at 1/{n} of its size, but the manifest lists {wanted}")
    return pixels.astype(np.uint8, copy=False)


def show(pixels: UInt8s, crop: Crop, n: int, out: UInt8s) -> None:
    """Write a crop of an image that was decoded at 1/n to `out`, uint8 (height, width, 3), C-contiguous.

    The crop, in pixels of the full image, must come from `extend_to_grid`. It is resized bicubically with antialiasing,
    as in MAE (resize.py).

    Raises:
        ValueError: The crop is not within the image.
    """
    from .resize import resize_crop

    left, top, right, bottom = crop.x // n, crop.y // n, -(-(crop.x + crop.width) // n), -(-(crop.y + crop.height) // n)
    height, width = pixels.shape[:2]
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(f"{crop} is not within an image of {width * n}x{height * n} pixels; clip it to the image")
    shared = pixels.view()
    shared.flags.writeable = False  # read-only like bytes, so that one compiled kernel serves both
    resize_crop(shared, left, top, right - left, bottom - top, crop.flip, out)
