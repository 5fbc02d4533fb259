"""Flow as colours: hue is the direction of motion, saturation its length, white is rest."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from .pictures import Bool, UInt8

Float = npt.NDArray[np.float32]

NICE_STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
MIN_SCALE_PX = 1.0
HATCH_PERIOD_PX = 8
HATCH_DARK, HATCH_LIGHT = 150, 205


def usable(vectors: Float, valid: Bool) -> Bool:
    """Where `vectors` (..., 2) hold a finite vector that the source really had."""
    return valid & np.isfinite(vectors).all(-1)


def flow_scale(vectors: Float, valid: Bool) -> float:
    """The length in pixels that is drawn in full colour.

    It is the 99th percentile of the usable vectors' lengths, rounded up to a round number, and at least 1 px, so that
    noise in a still clip stays pale.
    """
    lengths = np.linalg.norm(vectors[usable(vectors, valid)].astype(np.float64), axis=-1)
    top = max(float(np.percentile(lengths, 99)) if lengths.size else 0.0, MIN_SCALE_PX)
    power = 10.0 ** math.floor(math.log10(top))
    return next(s for s in NICE_STEPS if s * power >= top * (1 - 1e-9)) * power


def motion_colours(motion: Float, scale_px: float) -> UInt8:
    """Motion (..., 2), x then y (downwards) in pixels, as RGB (..., 3).

    Right is red, down is yellow-green, left is cyan, up is violet; `scale_px` and longer has full saturation.
    """
    x, y = motion[..., 0].astype(np.float64), motion[..., 1].astype(np.float64)
    hue = np.arctan2(y, x) / (2 * math.pi) % 1.0 * 6.0
    saturation = np.minimum(np.hypot(x, y) / scale_px, 1.0)
    # Each channel falls from 1 by the share of the hue's distance to it: HSV with value 1.
    distance = np.stack([np.abs((hue - offset + 3.0) % 6.0 - 3.0) for offset in (0.0, 2.0, 4.0)], axis=-1)
    channel = np.clip(2.0 - distance, 0.0, 1.0)
    return np.rint(255.0 * (1.0 - saturation[..., None] * (1.0 - channel))).astype(np.uint8)


def flow_picture(vectors: Float, valid: Bool, scale_px: float, size: tuple[int, int]) -> UInt8:
    """One step of backward flow (h, w, 2) as a picture (*size, 3) of where things moved, which is `-vectors`.

    Cells without a vector of their own (`valid` (h, w) False) are hatched grey, in their own geometry.
    """
    good = usable(vectors, valid)
    colours = motion_colours(np.where(good[..., None], -vectors, 0.0).astype(np.float32), scale_px)
    if vectors.shape[0] > size[0]:
        colours = cv2.resize(colours, size[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8)
    else:
        colours = cv2.resize(colours, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
    known = cv2.resize(good.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
    return np.where(known[..., None], colours, hatch(size)[..., None]).astype(np.uint8)


def hatch(size: tuple[int, int]) -> UInt8:
    """Grey diagonal lines (height, width), for cells without data."""
    y, x = np.ogrid[: size[0], : size[1]]
    return np.where((x + y) % HATCH_PERIOD_PX < 2, HATCH_DARK, HATCH_LIGHT).astype(np.uint8)


def wheel(size_px: int = 96) -> UInt8:
    """The legend: a disc (size_px, size_px, 4), RGBA, with the colour of motion towards each place at that place."""
    radius = size_px / 2
    axis = (np.arange(size_px, dtype=np.float32) + 0.5 - radius) / radius
    motion = np.stack(np.meshgrid(axis, axis), axis=-1)
    length = np.linalg.norm(motion, axis=-1)
    alpha = np.rint(255 * np.clip((1.0 - length) * radius + 0.5, 0.0, 1.0)).astype(np.uint8)
    return np.concatenate([motion_colours(motion, 1.0), alpha[..., None]], axis=-1)
