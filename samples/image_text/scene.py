"""Scenes: images arranged on white, so that the box of each is known exactly.

A source with `scene` in its `meta` is drawn from its files:

    {"scene": {"side": 128, "things": [[0, 8, 10, 48], [1, 70, 66, 40]]}, "phrase": ["the lion"], "of": [0]}

A thing is the number of a file, and its x, y and longer side in pixels. An image is cropped to its non-white part
before it is placed. `of` maps each phrase to its thing; without it, no phrase refers to one. The segment of a thing is
the area of its image's alpha channel, or the non-white part of an image without one.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskstream.preprocess.encode.image.encoder import read_alpha, read_picture
from maskstream.preprocess.encode.image_text.encoder import DrawnScene
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.arrays import Bools, UInt8s

SCENE = "scene"
WHITE = 247
"""Values from this one on count as white."""
LARGEST = 4096
"""The longest side of a scene, in pixels."""
KEPT = 64
"""Cropped images that a process caches."""


def draw_scene(source: Source) -> DrawnScene:
    """Draw the scene of a source. Raises RejectError for a thing that does not fit, or a phrase that refers to a
    missing one.
    """
    try:
        side = int(source.meta[SCENE]["side"])
        things = [tuple(map(int, one)) for one in source.meta[SCENE]["things"]]
        of = [int(one) for one in source.meta.get("of", ())]
        files = [source.files[file] for file, *_ in things]
        if not 1 <= side <= LARGEST or any(len(one) != 4 for one in things):
            raise ValueError(f"an image side of {side} pixels and the objects {things}")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RejectError(
            "decode", f"is not a scene with a side, objects and the objects of its phrases ({error!r})"
        ) from error
    if not all(0 <= one < len(things) for one in of):
        raise RejectError("check", f"its phrases refer to the objects {of}, but there are {len(things)}")
    pixels = np.full((side, side, 3), 255, np.uint8)
    segments = np.zeros((len(things), side, side), np.bool_)
    boxes = []
    for n, (path, (_, x, y, longer)) in enumerate(zip(files, things, strict=True)):
        thing, shape = _cut_thing(path, longer)
        height, width = shape.shape
        if not (0 <= x <= side - width and 0 <= y <= side - height):
            raise RejectError(
                "check", f"an object of {width}x{height} pixels at {x}, {y} does not fit in {side}x{side}"
            )
        pixels[y : y + height, x : x + width] = thing
        segments[n, y : y + height, x : x + width] = shape
        boxes.append([x, y, x + width, y + height])
    shares = np.array([boxes[one] for one in of], np.float64).reshape(-1, 4) / side
    return DrawnScene(pixels=pixels, boxes=shares.astype(np.float32), segments=segments[of])


def _cut_thing(path: Path, longer: int) -> tuple[UInt8s, Bools]:
    """Return the pixels of a thing, uint8 (h, w, 3), cropped to its non-white part, and the mask of its own pixels,
    bool (h, w).
    """
    try:
        state = path.stat()
    except OSError as error:
        raise RejectError("open", f"cannot be read: {error.strerror}") from error
    pixels, own = _cut(path, state.st_mtime_ns, state.st_size)
    return _resize_stamp(pixels, longer), _resize_stamp(own, longer) >= 128


@lru_cache(maxsize=KEPT)
def _cut(path: Path, mtime_ns: int, size_bytes: int) -> tuple[UInt8s, UInt8s]:
    """Return an image cropped to its non-white part, and its opacity, 0 or 255; cached, because scenes reuse the same
    images.
    """
    pixels, alpha = _make_coloured(read_picture(path).pixels), read_alpha(path)
    shown = _shown(pixels)
    own = np.where(pixels.min(axis=2) < WHITE, 255, 0).astype(np.uint8) if alpha is None else alpha
    return np.ascontiguousarray(pixels[shown]), np.ascontiguousarray(own[shown])


def _make_coloured(pixels: UInt8s) -> UInt8s:
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def _shown(pixels: UInt8s) -> tuple[slice, slice]:
    """Return the rows and columns of an image that are not white. Raise RejectError if it is all white."""
    shown: Any = (pixels < WHITE).any(axis=2)
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    if not len(rows):
        raise RejectError("check", "an image of the scene is white")
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _resize_stamp(pixels: UInt8s, longer: int) -> UInt8s:
    height, width = pixels.shape[:2]
    scale = longer / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(pixels, size, interpolation=way).astype(np.uint8, copy=False)
