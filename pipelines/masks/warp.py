"""Carries a map of the plane along a clip's flow, from a base frame to all others."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

INVERSION_STEPS = 3


def carry(start: Floats, flow: Floats, base: int, *, cell: tuple[float, float], fill: bool, compat: bool) -> Floats:
    """The map `start` (H, W) of frame `base`, seen in every frame of the clip: float32 (T, H, W).

    `flow` (T-1, h, w, 2) is backward flow, x then y, in pixels; `cell` is the width and height of one map cell in
    pixels. Frame by frame outwards from the base, each map is sampled (bilinear, zero outside) from its neighbour's:
    behind the base where the flow points, before it where the inverse flow points. With `fill`, places whose source is
    outside the frame take the value of `start`, which has to be positive everywhere. `compat` takes the flow itself,
    not its inverse, before the base.
    """
    frames, (height, width), (rows, columns) = len(flow) + 1, start.shape, flow.shape[1:3]
    steps = flow * constant_plane(rows, columns, 1 / cell[0], 1 / cell[1])
    if base and not compat:
        x, y = columns / width, rows / height
        inverted = inverse(steps[:base] * constant_plane(rows, columns, x, y))
        np.multiply(inverted, constant_plane(rows, columns, 1 / x, 1 / y), out=steps[:base])
    maps = np.empty((frames, height, width), dtype=np.float32)
    maps[base] = start
    for frame in (*range(base - 1, -1, -1), *range(base + 1, frames)):
        pair, neighbour = (frame, frame + 1) if frame < base else (frame - 1, frame - 1)
        points = cv2.resize(steps[pair], (width, height), interpolation=cv2.INTER_LINEAR)
        points += cell_positions(height, width)
        moved = maps[frame]
        moved[:] = sample(maps[neighbour], points)
        if fill:
            np.copyto(moved, start, where=moved == 0)
    return maps


def inverse(flow: Floats) -> Floats:
    """The inverse of fields (K, h, w, 2) in units of their own cells: q + inverse(q) = p where p + flow(p) = q.

    Fixed-point iteration p <- q - flow(p), which converges where the flow changes by less than a cell from cell to
    cell; flow outside the frame is that of its border.
    """
    count, height, width, _ = flow.shape
    places, last = cell_positions(height, width), constant_plane(height, width, width - 1, height - 1)
    stack = flow.reshape(count * height, width, 2)
    first_row = np.arange(0, count * height, height, dtype=np.float32)[:, None, None]
    result = -flow
    for _ in range(INVERSION_STEPS - 1):
        points = places + result
        np.minimum(np.maximum(points, 0, out=points), last, out=points)
        points[..., 1] += first_row
        result = -sample(stack, points.reshape(stack.shape)).reshape(flow.shape)
    return result


def sample(image: Floats, points: Floats) -> Floats:
    """`image` (H, W) or (H, W, 2) at `points` (h, w, 2), x then y, in cells: bilinear, zero outside."""
    sampled: Floats = cv2.remap(image, points, None, cv2.INTER_LINEAR)  # type: ignore[call-overload]
    return sampled


@lru_cache(maxsize=64)
def cell_positions(height: int, width: int) -> Floats:
    """The coordinates (x, y) of every cell: read-only (height, width, 2)."""
    y, x = np.mgrid[0:height, 0:width]
    return _frozen(np.stack([x, y], axis=-1))


@lru_cache(maxsize=64)
def constant_plane(height: int, width: int, x: float, y: float) -> Floats:
    """(x, y) at every cell: read-only (height, width, 2). Whole planes multiply much faster than a broadcast pair."""
    return _frozen(np.broadcast_to((x, y), (height, width, 2)))


def _frozen(values: npt.NDArray[np.generic]) -> Floats:
    plane = values.astype(np.float32, order="C")
    plane.setflags(write=False)
    return plane
