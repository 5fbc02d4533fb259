"""The encoder of point clouds: the member `points.npy`, float32 (N, 3 + features), with rows in random order.

Any run of rows is a random sample of the cloud, so a loader that needs 2,048 of a million points reads 2,048 rows. The
order, and the points sampled on a mesh, depend on the source's id alone.

A cloud is rejected if it is empty, holds a number that is not finite, has only coincident points (or a single one), or
has an extent whose square float32 cannot hold. A mesh is rejected if it has no faces or no area.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import xxhash

from maskstream.preprocess.encode.encoder import Encoded, made_of
from maskstream.preprocess.encode.mesh.surfaces import Surface
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.config import Config
from maskstream.shards.members.arrays import points_member

from .point_files import Cloud, read_points

PUBLISHED_ORDER = "published"
"""The value of a source's meta["rows"] that keeps the order of the rows: the publisher shuffled them, and papers refer
to the first 10,000."""

POINT_SUMS = "points"
"""The sums over all points: the count, x, y, z, and x^2 + y^2 + z^2."""

_FAR = 64.0
"""A cloud farther from the origin than this many times its extent is moved."""
_EXTENTS = (1e-15, 1e15)


@dataclass(frozen=True, kw_only=True, slots=True)
class PointEncoder(Config):
    """Encodes clouds with all their points, and meshes as `surface_points` points, uniform over the area."""

    modality: ClassVar[str] = "points"

    surface_points: int = 8192

    @property
    def profile(self) -> str:
        """The only profile: points."""
        return "points"

    def encode(self, source: Source) -> Encoded:
        """Encode a cloud or a mesh. meta["block"] (x_min, y_min, x_max, y_max) selects from a tile; `window` is in
        rows. `made_by` of a source makes a `Surface`.
        """
        made = made_of(source, Surface)
        found = read_points(source.path, source.meta.get("block")) if made is None else made
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
        points, origin = _recentred(points)
        stored = points.astype(np.float32).astype(np.float64)[:, :3]
        if source.meta.get("rows") != PUBLISHED_ORDER and not isinstance(found, Surface):
            points = points[rng.permutation(len(points))]
        return Encoded(
            members={"points.npy": points_member(points)},
            meta={"n_points": len(points), "columns": list(cloud.columns), "origin": origin, **facts},
            sums={POINT_SUMS: [float(len(stored)), *stored.sum(axis=0).tolist(), float(np.square(stored).sum())]},
        )


def surface_sample(surface: Surface, count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """`count` points on a surface, uniform over its area: float64 (count, 3). Raises RejectError if it has no area."""
    import trimesh

    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    area = float(mesh.area)
    if not 0 < area < np.inf:
        raise RejectError("check", f"the surface has the area {area}, so no points can be sampled on it")
    points, _ = trimesh.sample.sample_surface(mesh, count, seed=rng)
    return np.asarray(points, dtype=np.float64)


def check_points(points: npt.NDArray[np.float64]) -> None:
    """Raise RejectError for a cloud (N, 3 or more) that the module's docstring excludes."""
    if not len(points):
        raise RejectError("check", "has no points")
    if bad := int((~np.isfinite(points).all(axis=1)).sum()):
        raise RejectError("check", f"{bad} of {len(points)} points have a number that is not finite")
    with np.errstate(over="ignore"):
        extent = float(np.ptp(points[:, :3], axis=0).max())
    if extent == 0:
        raise RejectError("check", f"all {len(points)} points coincide" if len(points) > 1 else "has a single point")
    if not _EXTENTS[0] < extent < _EXTENTS[1] or np.abs(points).max() > np.finfo(np.float32).max:
        raise RejectError("check", f"has the extent {extent:g}; legal are {_EXTENTS[0]:g} to {_EXTENTS[1]:g}")


def _recentred(points: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], list[float]]:
    """The points and their origin. Points so far from 0 that float32 would lose their shape are moved: their minimum
    becomes the origin.
    """
    low = points[:, :3].min(axis=0)
    if np.abs(points[:, :3]).max() <= _FAR * np.ptp(points[:, :3], axis=0).max():
        return points, [0.0, 0.0, 0.0]
    moved = points.copy()
    moved[:, :3] -= low
    return moved, low.tolist()
