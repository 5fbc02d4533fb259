"""Schemes for points, meshes and skeletons, drawn on the surfaces of solids and on a motion capture."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from maskstream.pages.figures.card import Figure, join_picture_row
from maskstream.pages.figures.figures import MaskRow
from maskstream.pages.figures.mesh import draw_graph
from maskstream.pages.figures.pictures import picture
from maskstream.pages.figures.points import draw_voxels
from maskstream.pages.figures.pose import skeletons
from maskstream.pipelines.masks import Cues, Scheme, TokenGrid, submesh
from maskstream.pipelines.modalities.points.tokens import VoxelTokens, find_occupied_tokens
from maskstream.shards.arrays import Float32s, Int32s, Int64s
from maskstream.shards.media.h36m import JOINTS

from .scheme import DrawnMask, GalleryScene, GallerySection, Media, Mesh

TOKENS, POINTS, SIDE_PX = VoxelTokens(resolution=64, patch=4), 2048, 420
FEET = 6
"""The type of the nodes of the feet."""
SHOWN, STEP, FIRST = 12, 12, 60


def surface_points(mesh: Mesh, n: int, rng: np.random.Generator) -> Float32s:
    """Draw points uniformly on a surface: float32 (n, 3).

    Args:
        mesh: Vertices and faces.
        n: Number of points.
        rng: Random generator.
    """
    corners = mesh[0][mesh[1]].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = corners[rng.choice(len(area), size=n, p=area / area.sum())]
    u, v = np.sqrt(rng.random(n))[:, None], rng.random(n)[:, None]
    points = (1 - u) * chosen[:, 0] + u * (1 - v) * chosen[:, 1] + u * v * chosen[:, 2]
    return points.astype(np.float32)


def list_unique_edges(faces: Int32s) -> Int64s:
    """Return the edges of triangles, each once: int64 (2, E)."""
    pairs = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    return np.unique(pairs, axis=0).T.astype(np.int64)


def make_cloud_scene(plane: Mesh, seed: int) -> GalleryScene:
    """Return points on the surface of a solid, with voxels as tokens.

    Args:
        plane: The solid.
        seed: Seed of the points.
    """
    points = surface_points(plane, POINTS, np.random.default_rng(seed))
    occupied = find_occupied_tokens(torch.from_numpy(points)[None], TOKENS.resolution, TOKENS.patch)[0].numpy()

    def paint(drawn: Sequence[DrawnMask]) -> tuple[Figure, ...]:
        return draw_voxels(points, MaskRow.of(drawn[0].mask, 0), TOKENS, "an airplane")[0][-1:]

    return GalleryScene(grid=TOKENS.grid, cues=(Cues(occupied=occupied),), paint=paint)


def make_mesh_scene(animal: Mesh) -> GalleryScene:
    """Return the nodes of a surface; the lowest are a separate kind, the feet."""
    vertices, edges = animal[0], list_unique_edges(animal[1])
    kinds = np.where(vertices[:, 1] < np.percentile(vertices[:, 1], 7), FEET, 0).astype(np.int64)

    def paint(drawn: Sequence[DrawnMask]) -> tuple[Figure, ...]:
        masked = drawn[0].hidden
        left = np.isin(np.arange(edges.shape[1]), submesh(masked, edges).kept)
        pixels = draw_graph(vertices[:, [2, 0, 1]], edges, masked, left, side_px=SIDE_PX)
        words = f"{left.sum():,} of {left.size:,} edges keep both ends."
        return (join_picture_row(picture(pixels, "the remaining mesh"), title="The remaining graph", words=words),)

    grid = TokenGrid(axes=("node",), shape=(len(vertices),), patch=(1,))
    return GalleryScene(grid=grid, cues=(Cues(kinds=kinds),), paint=paint)


def make_skeleton_scene(walk: Float32s) -> GalleryScene:
    """Return frames of the capture side by side."""
    poses = walk[FIRST : FIRST + SHOWN * STEP : STEP]
    flat = np.stack([poses[:, :1, 1] - poses[..., 1], -poses[..., 2]], axis=-1)
    return GalleryScene(
        grid=TokenGrid(axes=("frame", "joint"), shape=(SHOWN, len(JOINTS)), patch=(1, 1)),
        paint=lambda drawn: tuple(skeletons(flat, hidden=one.hidden, title=one.shot.caption) for one in drawn),
    )


def _make_solid_scenes(media: Media, seed: int) -> Callable[[Scheme], GalleryScene]:
    assert media.plane is not None
    assert media.animal is not None
    cloud, mesh = make_cloud_scene(media.plane, seed), make_mesh_scene(media.animal)
    return lambda scheme: mesh if scheme.grid.axes == ("node",) else cloud


CLOUDS = GallerySection(
    title="Points and meshes",
    words="2048 points from the surface of an airplane in 64 x 64 x 64 voxels, 16 x 16 x 16 tokens of 4 x 4 x 4; "
    "and the 486 nodes of the mesh of an ant, whose feet are the nodes of type 6.",
    missing="mesh",
    needs=("plane", "animal"),
    axes=(("x", "y", "z"), ("node",)),
    scenes=_make_solid_scenes,
)
SKELETONS = GallerySection(
    title="Skeletons",
    words="Motion capture of a person who kneels down: 12 frames, 0.4 s apart, of 17 joints in Human3.6M's order. "
    "Large dots are visible to the encoder.",
    missing="motion capture",
    needs=("walk",),
    axes=(("frame", "joint"),),
    scenes=lambda media, seed: make_skeleton_scene(np.asarray(media.walk)).on_all,
)
