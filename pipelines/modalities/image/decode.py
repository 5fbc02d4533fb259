"""The bytes of a picture to pixels of its crops, decoded at the least size that the crops need.

libjpeg-turbo, which OpenCV's wheels bring, decodes a JPEG at 1/2, 1/4 or 1/8 of its size by a smaller inverse DCT of
each 8 x 8 block: much less work, and nearly what an average over the full picture gives. It is used where the reduced
crop still has at least as many pixels as the output. PNG and WebP have no such way and are decoded in full.

So that both ways show the same, a crop of a picture that is decoded at 1/n begins and ends at multiples of n: it grows
by less than n pixels at each side, which is less than one pixel of the output.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ...augment.crop import Crop

UInt8s = npt.NDArray[np.uint8]

_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
REDUCIBLE = ("jpg", "jpeg")
"""The endings of members that can be decoded at a part of their size."""


class PictureError(Exception):
    """A member that cannot be decoded, or is not of the size that the manifest says."""


def reduction(crops: Sequence[Crop], size: int) -> int:
    """The greatest n of 1, 2, 4, 8 at which each crop still has `size` x `size` pixels where it is decoded at 1/n."""
    shortest = min(min(crop.width, crop.height) for crop in crops)
    return max(n for n in _FLAGS if n == 1 or shortest // n >= size)


def on_grid(crop: Crop, n: int, width: int, height: int) -> Crop:
    """The crop of a picture of width x height, grown so that it begins and ends at multiples of n or at the edge."""
    x, y = crop.x // n * n, crop.y // n * n
    right = min(-(-(crop.x + crop.width) // n) * n, width)
    bottom = min(-(-(crop.y + crop.height) // n) * n, height)
    return Crop(x=x, y=y, width=right - x, height=bottom - y, flip=crop.flip)


def decode_picture(data: bytes, width: int, height: int, n: int = 1) -> UInt8s:
    """A picture of width x height pixels at 1/n of its size: uint8 (ceil(height / n), ceil(width / n), 3), in OpenCV's
    order (blue first). PictureError where it cannot be decoded, or has another size.
    """
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS[n])
    except cv2.error as error:
        raise PictureError(f"cannot be decoded ({' '.join(str(error).split())[:200]})") from error
    if pixels is None:
        raise PictureError("cannot be decoded")
    wanted = (-(-height // n), -(-width // n), 3)
    if pixels.shape != wanted:
        raise PictureError(f"decodes to {pixels.shape} at 1/{n}, and its manifest says {wanted}")
    return pixels.astype(np.uint8, copy=False)


def show(pixels: UInt8s, crop: Crop, n: int, out: UInt8s) -> None:
    """Writes a crop of a picture that was decoded at 1/n into `out`, uint8 (size, size, 3), as RGB.

    The crop lies on the grid of n. It is averaged over area where it shrinks, else it is cubic, as MAE has it.
    """
    right, bottom = crop.x + crop.width, crop.y + crop.height
    part = pixels[crop.y // n : -(-bottom // n), crop.x // n : -(-right // n)]
    size = len(out)
    shrinks = min(part.shape[:2]) >= size
    resized = cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    cv2.cvtColor(resized[:, ::-1] if crop.flip else resized, cv2.COLOR_BGR2RGB, dst=out)
