"""Point clouds as pictures: dots, the nearer ones drawn last and darker, and the boxes of tokens."""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np
import numpy.typing as npt

from .pictures import Bool, UInt8

Float32s = npt.NDArray[np.float32]

INK, SEEN, MADE, FADED = (0x3A, 0x3F, 0x4B), (0xC8, 0x4B, 0x1E), (0x1F, 0x6F, 0xB4), (0xB9, 0xBD, 0xC6)
"""Colours of points: as they are, as the encoder saw them, as a model made them, and what was hidden."""

BOX = (0xE0, 0x9A, 0x7C)

_PAPER = 255
SIDE = np.array([[0.82, 0.0, -0.57], [0.22, -0.92, 0.32], [0.53, 0.39, 0.76]], dtype=np.float32)
ABOVE = np.array([[-0.57, 0.0, -0.82], [0.67, -0.57, -0.47], [-0.47, -0.82, 0.33]], dtype=np.float32)
"""Where the eye is, as right, down and towards it, for clouds whose y is up: at a side, and at the next one, higher."""
_CORNERS = np.array(list(product((0, 1), repeat=3)), dtype=np.float32)
_EDGES = [(i, j) for i in range(8) for j in range(i) if bin(i ^ j).count("1") == 1]


def cloud_picture(
    points: Float32s,
    colours: npt.NDArray[np.uint8] | tuple[int, int, int] = INK,
    *,
    boxes: Float32s | None = None,
    box_side: float = 0.0,
    box_colours: npt.NDArray[np.uint8] | tuple[int, int, int] = BOX,
    reach: float | None = None,
    view: Float32s = SIDE,
    side_px: int = 240,
) -> UInt8:
    """A square picture uint8 (side_px, side_px, 3) of points float32 (N, 3), seen from the side and above.

    colours: one, or uint8 (N, 3). boxes: lowest corners float32 (n, 3) of cubes with edges of `box_side`, drawn in
    their order behind the points; box_colours: one, or uint8 (n, 3). reach: how far from the middle of the picture's
    cube its edge lies, by default so that all fits; give it to draw several clouds to one scale, whose middle is then
    (0, 0, 0). view: where the eye is.
    """
    middle = np.zeros(3, np.float32) if reach is not None else (points.min(axis=0) + points.max(axis=0)) / 2
    reach = reach if reach is not None else max(float(np.abs(points - middle).max()), 1e-6)
    scale = side_px / (2 * 1.5 * reach)
    picture = np.full((side_px, side_px, 3), _PAPER, dtype=np.uint8)

    def placed(xyz: Float32s) -> tuple[npt.NDArray[np.int32], Float32s]:
        turned = (xyz - middle) @ view.T
        return np.round(turned[:, :2] * scale + side_px / 2).astype(np.int32), turned[:, 2]

    if boxes is not None:
        lines = np.broadcast_to(np.asarray(box_colours), (len(boxes), 3)).tolist()
        for low, colour in zip(boxes, lines, strict=True):
            corners, _ = placed(low + _CORNERS * np.float32(box_side))
            for i, j in _EDGES:
                cv2.line(picture, corners[i].tolist(), corners[j].tolist(), colour, 1, cv2.LINE_AA)
    at, near = placed(points[:, :3])
    light = 0.55 * (1 - np.clip(near / (1.2 * reach) / 2 + 0.5, 0, 1))[:, None]
    shades = (
        np.broadcast_to(np.asarray(colours, dtype=np.float32), (len(points), 3)) * (1 - light) + 255 * light
    ).astype(np.uint8)
    radius = max(1, round(side_px / 160))
    for i in np.argsort(near, kind="stable").tolist():
        cv2.circle(picture, at[i].tolist(), radius, shades[i].tolist(), -1, cv2.LINE_AA)
    return picture


def marked(points: Float32s, chosen: Bool, yes: tuple[int, int, int], no: tuple[int, int, int]) -> UInt8:
    """A colour for each point, uint8 (N, 3): `yes` where `chosen`, else `no`."""
    return np.where(chosen[:, None], np.array(yes, np.uint8), np.array(no, np.uint8)).reshape(len(points), 3)
