"""Flow as colours: hue is the direction of motion, saturation its length, white is rest."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipelines.flow.picture import motion_colours, usable

from .pictures import Bool, UInt8

Float = npt.NDArray[np.float32]

HATCH_PERIOD_PX = 8
HATCH_DARK, HATCH_LIGHT = 150, 205


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
