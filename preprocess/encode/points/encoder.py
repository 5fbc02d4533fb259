"""Point clouds for shards: `points.npy`, float32 (N, 3 + features), whose rows lie in random order.

Because of that order any run of rows is a random sample of the cloud, so a loader that wants 2,048 points of a million
reads 2,048 rows. Order and the points that are drawn on the surface of a mesh depend on the source's id alone.

A cloud is rejected where it is empty, holds a number that is not finite, all its points coincide (one point is such a
cloud), or it is larger or smaller than float32 can square. A mesh is rejected where it has no faces or no area.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import xxhash

from ....shards.config import Config
from ....shards.members.points import points_member
from ...source import Source
from ..encoder import Encoded
from ..mesh.surfaces import Surface
from ..reject import RejectError
from .cloud import Cloud
from .point_files import read_points

PUBLISHED_ORDER = "published"
"""The value of a source's meta["rows"] that keeps the rows as they are: where the publisher shuffled them, and papers
speak of the first 10,000."""

POINT_SUMS = "points"
"""The sums of a split over all points: their number, x, y, z, and x^2 + y^2 + z^2."""

_FAR = 64.0  # how many times its extent a cloud may be away from its origin before it is moved
_EXTENTS = (1e-15, 1e15)


@dataclass(frozen=True, kw_only=True, slots=True)
class PointEncoder(Config):
    """`surface_points` points are drawn on a mesh, uniformly over its area. Clouds keep all of their points."""

    modality: ClassVar[str] = "points"

    surface_points: int = 8192

    @property
    def profile(self) -> str:
        """There is one."""
        return "points"

    def encode(self, source: Source) -> Encoded:
        """The cloud of a source: of a tile its meta["block"] (x and y from, then to), of an array its rows `window`."""
        found = read_points(source.path, source.meta.get("block"))
        rng = np.random.Generator(np.random.Philox(key=xxhash.xxh3_128_intdigest(source.id.encode())))
        facts: dict[str, Any] = {}
        if isinstance(found, Surface):
            cloud = Cloud(points=surface_sample(found, self.surface_points, rng), columns=("x", "y", "z"))
            facts["faces"] = len(found.faces)
        else:
            cloud = found
            facts["noise_dropped"] = cloud.n_dropped
        points = cloud.points if source.window is None else cloud.points[slice(*source.window)]
        check_points(points)
        points, origin = _near(points)
        stored = points.astype(np.float32).astype(np.float64)[:, :3]
        if source.meta.get("rows") != PUBLISHED_ORDER and not isinstance(found, Surface):
            points = points[rng.permutation(len(points))]
        return Encoded(
            members={"points.npy": points_member(points)},
            meta={"n_points": len(points), "columns": list(cloud.columns), "origin": origin, **facts},
            sums={POINT_SUMS: [float(len(stored)), *stored.sum(axis=0).tolist(), float(np.square(stored).sum())]},
        )


def surface_sample(surface: Surface, count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """`count` points on a surface, uniform over its area: float64 (count, 3); RejectError where it has no area."""
    import trimesh

    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    area = float(mesh.area)
    if not 0 < area < np.inf:
        raise RejectError("check", f"the surface has the area {area}: there is nothing to draw points on")
    points, _ = trimesh.sample.sample_surface(mesh, count, seed=rng)
    return np.asarray(points, dtype=np.float64)


def check_points(points: npt.NDArray[np.float64]) -> None:
    """RejectError unless the rows of (N, 3 or more) are a shape, as the head of this file says."""
    if not len(points):
        raise RejectError("check", "has no points")
    if bad := int((~np.isfinite(points).all(axis=1)).sum()):
        raise RejectError("check", f"{bad} of {len(points)} points have a number that is not finite")
    with np.errstate(over="ignore"):
        extent = float(np.ptp(points[:, :3], axis=0).max())
    if extent == 0:
        raise RejectError("check", f"all {len(points)} points coincide" if len(points) > 1 else "has a single point")
    if not _EXTENTS[0] < extent < _EXTENTS[1] or np.abs(points).max() > np.finfo(np.float32).max:
        raise RejectError("check", f"an extent of {extent:g} is outside {_EXTENTS[0]:g} to {_EXTENTS[1]:g}")


def _near(points: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], list[float]]:
    """The points, moved to their least corner where they are so far from 0 that float32 would lose their shape; and by
    what they were moved.
    """
    low = points[:, :3].min(axis=0)
    if np.abs(points[:, :3]).max() <= _FAR * np.ptp(points[:, :3], axis=0).max():
        return points, [0.0, 0.0, 0.0]
    moved = points.copy()
    moved[:, :3] -= low
    return moved, low.tolist()
