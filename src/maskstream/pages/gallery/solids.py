"""Schemes for point clouds and meshes."""

from collections.abc import Callable, Sequence
from itertools import product
from math import cos, radians, sin
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from maskstream.pages.figures.card import Drawing, Figure
from maskstream.pages.figures.chart import dots, lines
from maskstream.pipelines.masks import Cues, Scheme, TokenGrid, submesh
from maskstream.pipelines.modalities.points.tokens import occupied_tokens, voxel_grid, voxel_places

from .scheme import Drawn, GalleryScene, GallerySection, Media, Mesh, Paint

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
    return np.asarray((low[:, None, :] + CORNERS * size).reshape(-1, 3))


def box_edges(boxes: int) -> npt.NDArray[np.int64]:
    """The edges of so many cubes between their corners: (n * 12, 2)."""
    return (BOX_EDGES[None] + 8 * np.arange(boxes)[:, None, None]).reshape(-1, 2)


RESOLUTION, PATCH, POINTS = 64, 4, 2048
WIDTH = 480.0
FEET = 6
"""The type of the nodes of the feet."""


def scenes_by_axes(plane: Mesh, animal: Mesh, seed: int) -> dict[tuple[str, ...], GalleryScene]:
    """The airplane's points and the animal's mesh."""
    cloud = torch.from_numpy(surface_points(plane, POINTS, np.random.default_rng(seed)))[None]
    occupied = occupied_tokens(cloud, RESOLUTION, PATCH)[0].numpy()
    places = voxel_places(cloud, RESOLUTION)[0].numpy()
    vertices, faces = animal
    kinds = np.where(vertices[:, 1] < np.percentile(vertices[:, 1], 7), FEET, 0).astype(np.int64)
    return {
        ("x", "y", "z"): GalleryScene(
            grid=voxel_grid(RESOLUTION, PATCH), cues=(Cues(occupied=occupied),), paint=voxel_painter(places, occupied)
        ),
        ("node",): GalleryScene(
            grid=TokenGrid(axes=("node",), shape=(len(vertices),), patch=(1,)),
            cues=(Cues(kinds=kinds),),
            paint=mesh_painter(vertices, unique_edges(faces), kinds),
        ),
    }


def surface_points(mesh: Mesh, n: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Points uniform on the surface: float32 (n, 3)."""
    corners = mesh[0][mesh[1]].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = corners[rng.choice(len(area), size=n, p=area / area.sum())]
    u, v = np.sqrt(rng.random(n))[:, None], rng.random(n)[:, None]
    points = (1 - u) * chosen[:, 0] + u * (1 - v) * chosen[:, 1] + u * v * chosen[:, 2]
    return points.astype(np.float32)


def unique_edges(faces: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """The edges of triangles, each once: int64 (2, E)."""
    pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    return np.unique(pairs, axis=0).T.astype(np.int64)


def voxel_painter(places: Floats, occupied: npt.NDArray[np.bool_]) -> Paint:
    """Paints the cloud with the boxes of its visible tokens."""
    side = RESOLUTION // PATCH
    token_of = (np.minimum(np.rint(places).astype(np.int64) // PATCH, side - 1) * (side * side, side, 1)).sum(axis=1)

    def paint(drawn: Sequence[Drawn], grid: TokenGrid) -> tuple[Figure, ...]:
        visible = ~drawn[0][1].masked[0].numpy()
        tokens = [np.argwhere((visible & kind).reshape(side, side, side)) for kind in (occupied, ~occupied)]
        boxes = [np.zeros((1, 3)), *(low * float(PATCH) for low in tokens)]
        corners = [box_corners(low, float(RESOLUTION if n == 0 else PATCH)) for n, low in enumerate(boxes)]
        flat, height = fitted(seen_from(np.concatenate([*corners, places])), WIDTH)
        frame, full, empty, points = np.split(flat, np.cumsum([len(one) for one in corners]))
        inside = visible[token_of]
        return (
            Drawing(
                paths=(
                    ("line-hidden", lines(frame, box_edges(1))),
                    ("dot-hidden", dots(points[~inside])),
                    ("line-frame", lines(empty, box_edges(len(empty) // 8))),
                    ("line-visible", lines(full, box_edges(len(full) // 8))),
                    ("dot-visible", dots(points[inside])),
                ),
                width=WIDTH,
                height=height,
                alt="points of an airplane and the visible tokens",
                keys=(("dot-visible", "points in visible tokens"), ("dot-hidden", "hidden")),
            ),
        )

    return paint


def mesh_painter(vertices: Floats, edges: npt.NDArray[np.int64], kinds: npt.NDArray[np.int64]) -> Paint:
    """Paints the visible nodes with their edges, and the hidden edges pale."""
    flat, height = fitted(seen_from(vertices[:, [2, 0, 1]], turn=25, above=32), WIDTH)

    def paint(drawn: Sequence[Drawn], grid: TokenGrid) -> tuple[Figure, ...]:
        masked = drawn[0][1].masked[0].numpy()
        left = submesh(masked, edges)
        paths = [
            ("line-hidden", lines(flat, np.delete(edges, left.kept, axis=1).T)),
            ("line-visible", lines(flat, edges[:, left.kept].T)),
            ("dot-visible", dots(flat[left.nodes])),
        ]
        keys = [("line-visible", f"{len(left.kept):,} of {edges.shape[1]:,} edges left"), ("line-hidden", "gone")]
        if not masked[kinds == FEET].any():
            paths.append(("dot-kept", dots(flat[kinds == FEET])))
            keys.append(("dot-kept", "protected"))
        return (Drawing(paths=tuple(paths), width=WIDTH, height=height, alt="the mesh that is left", keys=tuple(keys)),)

    return paint


def _scenes(media: Media, seed: int) -> Callable[[Scheme], GalleryScene]:
    assert media.plane is not None
    assert media.animal is not None
    scenes = scenes_by_axes(media.plane, media.animal, seed)
    return lambda scheme: scenes[scheme.grid.axes]


KIND = GallerySection(
    title="Points and meshes",
    words="2048 points from the surface of an airplane in 64 x 64 x 64 voxels, 16 x 16 x 16 tokens of 4 x 4 x 4; "
    "and the 486 nodes of the mesh of an ant, whose feet are the nodes of type 6.",
    missing="mesh",
    needs=("plane", "animal"),
    axes=(("x", "y", "z"), ("node",)),
    scenes=_scenes,
)
