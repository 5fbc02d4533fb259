"""Builds a triangle mesh of a channel with a cylinder.

It is the Delaunay triangulation of points on the boundaries, on rings around the cylinder whose spacing grows to that
of the channel, and on a jittered hexagonal grid elsewhere.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64s = npt.NDArray[np.float64]

_RING_POINTS_PER_SPACING = 0.8
"""The largest distance of points on the cylinder's edge, as a share of the channel's spacing."""
_MIN_RING_POINTS = 20
_JITTER = 0.1


def channel_mesh(
    centre: tuple[float, float], radius: float, *, length: float, height: float, spacing: float
) -> tuple[Float64s, npt.NDArray[np.int64]]:
    """Nodes float64 (V, 2) in metres and triangles int64 (C, 3) of [0, length] x [0, height] without the disc.

    All lengths are in metres. The same arguments give the same mesh.
    """
    from scipy.spatial import Delaunay

    rings, reach = _rings(centre, radius, spacing, room=min(centre[1], height - centre[1]))
    points = np.concatenate([_border(length, height, spacing), *rings, _grid(centre, reach, length, height, spacing)])
    triangles = Delaunay(points).simplices.astype(np.int64)
    middle = points[triangles].mean(axis=1)
    outside = np.hypot(*(middle - centre).T) > 0.999 * radius
    triangles = triangles[outside & (_area(points, triangles) > 1e-3 * spacing**2)]
    used, numbered = np.unique(triangles, return_inverse=True)
    return points[used], numbered.reshape(triangles.shape)


def _border(length: float, height: float, spacing: float) -> Float64s:
    corners = np.array([[0, 0], [length, 0], [length, height], [0, height]], dtype=np.float64)
    sides = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = np.linspace(0, 1, int(np.ceil(np.hypot(*(end - start)) / spacing)), endpoint=False)[:, None]
        sides.append(start * (1 - along) + end * along)
    return np.concatenate(sides)


def _rings(centre: tuple[float, float], radius: float, spacing: float, *, room: float) -> tuple[list[Float64s], float]:
    """Rings with equal numbers of points, each rotated by half a gap against the last, and the radius at which they
    end.

    `room` is the distance from the centre to the nearest wall.
    """
    count = max(_MIN_RING_POINTS, int(np.ceil(2 * np.pi * radius / (_RING_POINTS_PER_SPACING * spacing))))
    rings: list[Float64s] = []
    at = radius
    while True:
        turn = np.linspace(0, 2 * np.pi, count, endpoint=False) + len(rings) * np.pi / count
        rings.append(np.stack([centre[0] + at * np.cos(turn), centre[1] + at * np.sin(turn)], axis=1))
        gap = 2 * np.pi * at / count
        at += 0.87 * gap
        if gap > spacing or at + gap > room - 0.4 * spacing:
            return rings, at


def _grid(centre: tuple[float, float], reach: float, length: float, height: float, spacing: float) -> Float64s:
    """Points inside the channel, farther than `reach` from the centre, jittered by up to a tenth of the spacing."""
    x, y = np.meshgrid(
        np.arange(spacing, length - spacing / 2, spacing),
        np.arange(0.87 * spacing, height - spacing / 2, 0.87 * spacing),
    )
    x = x + (np.arange(len(x)) % 2)[:, None] * spacing / 2
    moved = np.random.default_rng(0).uniform(-_JITTER, _JITTER, (x.size, 2)) * spacing
    points = np.stack([x.ravel(), y.ravel()], axis=1) + moved
    clear = np.hypot(*(points - centre).T) > reach - 0.3 * spacing
    inside = (points[:, 0] < length - 0.4 * spacing) & (points[:, 1] < height - 0.4 * spacing)
    chosen: Float64s = points[clear & inside]
    return chosen


def _area(points: Float64s, triangles: npt.NDArray[np.int64]) -> Float64s:
    a, b, c = (points[triangles[:, i]] for i in range(3))
    area: Float64s = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    return area
