"""Projection of points in space onto the page, and the boxes there."""

from __future__ import annotations

from itertools import product
from math import cos, radians, sin
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


def seen_from(points: Floats, *, turn: float = 35.0, above: float = 22.0) -> Floats:
    """Points (..., 3), z upwards, as (..., 2) on the page, y downwards, from `turn` degrees around z, `above` it."""
    a, b = radians(turn), radians(above)
    x = points[..., 0] * cos(a) - points[..., 1] * sin(a)
    depth = points[..., 0] * sin(a) + points[..., 1] * cos(a)
    return np.stack([x, -(points[..., 2] * cos(b) + depth * sin(b))], axis=-1)


def fitted(flat: Floats, width: float, margin: float = 4.0) -> tuple[Floats, float]:
    """Points (..., 2) moved and scaled into a box of `width`, and the height of the box."""
    low = flat.reshape(-1, 2).min(axis=0)
    high = flat.reshape(-1, 2).max(axis=0)
    scale = (width - 2 * margin) / float(high[0] - low[0])
    return (flat - low) * scale + margin, float(high[1] - low[1]) * scale + 2 * margin


CORNERS = np.array(list(product((0.0, 1.0), repeat=3)))
BOX_EDGES = np.array([(i, j) for i in range(8) for j in range(i) if bin(i ^ j).count("1") == 1])


def box_corners(low: Floats, size: float) -> Floats:
    """The corners of cubes with their lowest corners at `low` (n, 3): (n * 8, 3)."""
    out: Floats = (low[:, None, :] + CORNERS * size).reshape(-1, 3)
    return out


def box_edges(boxes: int) -> npt.NDArray[np.int64]:
    """The edges of so many cubes between their corners: (n * 12, 2)."""
    return (BOX_EDGES[None] + 8 * np.arange(boxes)[:, None, None]).reshape(-1, 2)
