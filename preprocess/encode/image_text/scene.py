"""Scenes: pictures laid out on white, so that the box of each is known exactly.

A source with `scene` in its `meta` is drawn of its files:

    {"scene": {"side": 128, "things": [[0, 8, 10, 48], [1, 70, 66, 40]]}, "phrase": ["the lion"], "of": [0]}

A thing is the number of a file, and the x, y and longer side of where it lies, in pixels. A picture is cut to what is
not white before it is laid there. `of` says to which thing each phrase refers.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ...source import Source
from ..image.picture import UInt8s, read_picture
from ..reject import RejectError

SCENE = "scene"
WHITE = 247
"""A value of this and more counts as white."""
LARGEST = 4096
"""The longest side of a scene, in pixels."""


def drawn_scene(source: Source) -> tuple[UInt8s, npt.NDArray[np.float32]]:
    """The pixels of a scene, uint8 (side, side, 3) in OpenCV's order, and for each phrase the box of its thing: x0, y0,
    x1, y1 as shares of the scene, float32 (n, 4).

    RejectError for a thing that does not fit, or a phrase of none.
    """
    try:
        side = int(source.meta[SCENE]["side"])
        things = [tuple(map(int, one)) for one in source.meta[SCENE]["things"]]
        of = [int(one) for one in source.meta["of"]]
        files = [source.files[file] for file, *_ in things]
        if not 1 <= side <= LARGEST or any(len(one) != 4 for one in things):
            raise ValueError(f"a side of {side} pixels and things {things}")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RejectError("decode", f"is no scene with a side, things and what phrases are of ({error!r})") from error
    pixels = np.full((side, side, 3), 255, np.uint8)
    boxes = []
    for path, (_, x, y, longer) in zip(files, things, strict=True):
        thing = _resized(_cut(_coloured(read_picture(path).pixels)), longer)
        height, width = thing.shape[:2]
        if not (0 <= x <= side - width and 0 <= y <= side - height):
            raise RejectError("check", f"a thing of {width}x{height} pixels at {x}, {y} is not in {side}x{side}")
        pixels[y : y + height, x : x + width] = thing
        boxes.append([x, y, x + width, y + height])
    if not all(0 <= one < len(boxes) for one in of):
        raise RejectError("check", f"its phrases are of the things {of}; there are {len(boxes)}")
    shares = np.array([boxes[one] for one in of], np.float64).reshape(-1, 4) / side
    return pixels, shares.astype(np.float32)


def _coloured(pixels: UInt8s) -> UInt8s:
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def _cut(pixels: UInt8s) -> UInt8s:
    """The part of a picture that is not white. RejectError for one that is white."""
    shown: Any = (pixels < WHITE).any(axis=2)
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    if not len(rows):
        raise RejectError("check", "a picture of the scene is white")
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _resized(pixels: UInt8s, longer: int) -> UInt8s:
    height, width = pixels.shape[:2]
    scale = longer / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(pixels, size, interpolation=way).astype(np.uint8, copy=False)
