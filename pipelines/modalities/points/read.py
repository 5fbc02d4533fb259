"""Draw points of a cloud, read only their rows, and normalise, scale, rotate and jitter them.

A member `points.npy` is a header, whose contents the manifest repeats, and rows of float32. Rows are stored in random
order, so any run of consecutive rows is a random sample of the cloud without replacement, and one read suffices for
clouds of any size. A run starts at a uniformly drawn row and wraps around, so every row is equally likely.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np

from maskstream.shards.arrays import Float32s, Float64s, Int64s
from maskstream.shards.config import Config
from maskstream.shards.errors import DataError, ShardError
from maskstream.shards.format.data_errors import parsing
from maskstream.shards.format.dataset import DATASET_JSON, read_dataset_json
from maskstream.shards.limits import NaturalFloat, NaturalInt, PositiveFloat, PositiveInt, PositiveInterval
from maskstream.shards.stores.base import Range, Store

_FARTHEST = 1e18
FACTS = ("n_points", "n_columns", "data_offset")
"""Manifest columns of a member that are used."""


class PointsError(DataError):
    """A member does not contain the requested points; the message describes its contents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PointSelection(Config):
    """Selection of points from each cloud.

    Attributes:
        points: Number of points.
        replace: True draws every point from the whole cloud with replacement, as DiT-3D does, which reads the whole
            cloud. False reads a run of consecutive rows; a smaller cloud returns all its points plus random
            repetitions.
        rows: Restrict the draw to the rows [first, stop), such as (0, 10000) for PointFlow's training points of
            ShapeNet; rows beyond the end of a cloud are ignored.
        features: Columns after x, y, z: names such as ("red", "green", "blue"), which every cloud must have, or a
            number of columns in stored order.
    """

    points: PositiveInt = 2048
    replace: bool = False
    rows: tuple[int, int] | None = None
    features: NaturalInt | tuple[str, ...] = 0

    def validate(self) -> None:
        if not isinstance(self.features, int) and len({*self.features, *"xyz"}) < len(self.features) + 3:
            raise ValueError(f"features must name each column after x, y, z once, got {list(self.features)}")
        if self.rows is not None and not 0 <= self.rows[0] < self.rows[1]:
            raise ValueError(f"rows must be (first, stop) with 0 <= first < stop, got {self.rows}")

    @property
    def n_features(self) -> int:
        """Number of columns after x, y, z."""
        return self.features if isinstance(self.features, int) else len(self.features)

    def columns(self, *names: str) -> list[int]:
        """Return the output columns with these names; empty if one is missing."""
        named = () if isinstance(self.features, int) else self.features
        return [3 + named.index(name) for name in names] if {*names} <= {*named} else []

    def read(
        self, store: Store, place: Range, facts: Mapping[str, int | float], rng: np.random.Generator
    ) -> tuple[Float32s, int]:
        """Draw and read points of the member at `place`; returns float32 (points, 3 + features) and the number of bytes
        read.

        `facts` are the member's columns in the manifest.

        Raises:
            PointsError: The member has too few columns or rows, or contains a number that is not finite.
        """
        rows = self.rows_of(place, facts, rng)
        return self.taken(store.read_many(rows.ranges), rows), rows.size_bytes

    def rows_of(
        self, place: Range, facts: Mapping[str, int | float], rng: np.random.Generator, names: str = ""
    ) -> PointPlan:
        """Draw the rows of the member at `place`, without reading.

        `names` are the names of its columns after x, y, z, separated by commas.

        Raises:
            PointsError: The member lacks rows or columns.
        """
        n_rows, columns, begin = (int(facts[name]) for name in FACTS)
        if min(n_rows, columns, begin) < 0 or begin + 4 * n_rows * columns != place.size:
            raise PointsError(
                f"has {place.size} bytes; the manifest lists {begin} bytes of header and {n_rows} rows of {columns} "
                "float32"
            )
        if columns < 3 + self.n_features:
            raise PointsError(f"has {columns} columns, fewer than x, y, z and features={self.features}")
        taken = None if isinstance(self.features, int) else _find_columns(self.features, names)
        first, stop = self.rows or (0, n_rows)
        stop = min(stop, n_rows)
        if first >= stop:
            raise PointsError(f"has {n_rows} rows, none of them in rows={self.rows}")

        def run(start: int, count: int) -> Range:
            return Range(place.name, place.offset + begin + 4 * columns * start, 4 * columns * count)

        n = stop - first
        if self.replace:
            return PointPlan(
                ranges=(run(first, n),), columns=columns, taken=taken, order=rng.integers(n, size=self.points)
            )
        if n <= self.points:
            extra = rng.integers(n, size=self.points - n)
            order = np.concatenate([rng.permutation(n), extra])
            return PointPlan(ranges=(run(first, n),), columns=columns, taken=taken, order=order)
        start = int(rng.integers(n))
        ahead = min(n - start, self.points)
        runs = [run(first + start, ahead), run(first, self.points - ahead)]
        return PointPlan(ranges=tuple(one for one in runs if one.size), columns=columns, taken=taken, order=None)

    def taken(self, data: Sequence[bytes], rows: PointPlan) -> Float32s:
        """Select the drawn rows from the bytes read: float32 (points, 3 + features).

        Raises:
            PointsError: A number is not finite.
        """
        read = np.frombuffer(b"".join(data), dtype="<f4").reshape(-1, rows.columns)
        chosen = read if rows.order is None else read[rows.order]
        got = chosen[:, : 3 + self.n_features] if rows.taken is None else chosen[:, [0, 1, 2, *rows.taken]]
        if got.min() >= -_FARTHEST and got.max() <= _FARTHEST:  # both are false for NaN
            return np.ascontiguousarray(got)
        if not np.isfinite(got).all():
            raise PointsError("contains a number that is not finite")
        if np.abs(got[:, :3]).max() > _FARTHEST:
            raise PointsError(
                f"has a point farther than {_FARTHEST:g} from the origin, so its square overflows float32"
            )
        return np.ascontiguousarray(got)


def _find_columns(features: Sequence[str], names: str) -> tuple[int, ...]:
    """Return the stored columns of the features; `names` are the names of all columns after x, y, z."""
    there = names.split(",") if names else []
    if missing := [name for name in features if name not in there]:
        raise PointsError(
            f"has no feature {missing[0]!r}, but {', '.join(there) or 'none with a name'}; choose features "
            f"that all clouds have, or features={len(features)} for the first columns after x, y, z"
        )
    return tuple(3 + there.index(name) for name in features)


@dataclass(frozen=True, kw_only=True, slots=True)
class PointPlan:
    """Drawn rows of a cloud."""

    ranges: tuple[Range, ...]
    """Byte ranges to read."""
    columns: int
    """Number of columns of a stored row."""
    taken: tuple[int, ...] | None
    """Columns of the features; None for the first ones."""
    order: Int64s | None
    """int64 (points,): points as indexes into the rows read; None for all rows in order."""

    @property
    def size_bytes(self) -> int:
        """Number of bytes to read."""
        return sum(one.size for one in self.ranges)


Axis = Literal["x", "y", "z", "up", "any"]
NORMALS = ("normal_x", "normal_y", "normal_z")
Normalise = Literal["ball", "deviation", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PointStats(Config):
    """Mean of all points of a dataset, and one standard deviation for all axes, as DiT-3D normalises ShapeNet.

    Attributes:
        mean: Mean of x, y and z.
        deviation: Standard deviation over all coordinates.
    """

    mean: tuple[float, float, float]
    deviation: PositiveFloat

    @classmethod
    def of(cls, location: str | Path) -> Self:
        """Return the statistics of the split in the folder `location`, from the sums in its dataset.json.

        Use the training split's statistics for all splits.

        Raises:
            ShardError: dataset.json has no sums of points.
        """
        sums = read_dataset_json(location).get("sums", {}).get("points")
        if not sums:
            raise ShardError(f"dataset.json of {location} has no point sums; write the shards again from the raw data")
        with parsing(f"{location}/{DATASET_JSON}"):
            n, x, y, z, squares = sums
            mean = (x / n, y / n, z / n)
            variance = squares / n / 3 - sum(value * value for value in mean) / 3
            return cls(mean=mean, deviation=math.sqrt(max(variance, 0.0)))


@dataclass(frozen=True, kw_only=True, slots=True)
class PointAugment(Config):
    """Normalise, scale, rotate, shift and jitter the coordinates of a cloud, in this order.

    Among the features, only normals are transformed, when clouds are rotated or their axes scaled separately.

    Attributes:
        normalise: "ball" subtracts the cloud's mean and divides by the largest norm; "deviation" subtracts the mean and
            divides by the root mean square of all coordinates; a `PointStats` uses the dataset's statistics; "none"
            does nothing. A cloud whose points all coincide is only centred.
        scale: Interval of a uniformly drawn scale factor.
        rotate: Axis of a rotation by a uniform angle; "up" is the upward axis of the split (`PointEncoder.up`), "any"
            draws uniformly from all rotations.
        jitter: Standard deviation of normal noise on every coordinate.
        jitter_most: Largest absolute value of that noise.
        per_axis: Draw a separate scale factor for each axis.
        shift: Shift each axis by a uniform draw from [-shift, shift].
    """

    normalise: Normalise | PointStats = "ball"
    scale: PositiveInterval = (1.0, 1.0)
    rotate: Axis | None = None
    jitter: NaturalFloat = 0.0
    jitter_most: NaturalFloat = 0.05
    per_axis: bool = False
    shift: NaturalFloat = 0.0

    def __call__(self, points: Float32s, rng: np.random.Generator, normals: Sequence[int] = ()) -> Float32s:
        """Augment points, float32 (N, 3 + features), without changing the input; `normals` are the
        columns of normals.
        """
        # As (3, N), each axis is contiguous, for which numpy is ten times as fast as for rows of three numbers.
        xyz = self._normalise_points(points[:, :3].T.astype(np.float64, order="C"))
        out = np.empty(points.shape, np.float32)
        out[:, 3:] = points[:, 3:]
        if self.scale[0] < self.scale[1]:
            factors = rng.uniform(*self.scale, size=3 if self.per_axis else 1)
            xyz *= factors[:, None]
            if self.per_axis and normals:  # normals of a surface scaled by factors are divided by these factors
                across = points[:, normals] / factors
                length = np.linalg.norm(across, axis=1, keepdims=True)
                out[:, normals] = across * np.linalg.norm(points[:, normals], axis=1, keepdims=True) / (length + 1e-12)
        elif self.scale[0] != 1:
            xyz *= self.scale[0]
        if self.rotate is not None:
            turn = rotation(self.rotate, rng).T
            xyz = (np.ascontiguousarray(xyz.T) @ turn).T
            if normals:
                out[:, normals] = out[:, normals] @ turn
        if self.shift > 0:
            xyz += rng.uniform(-self.shift, self.shift, size=3)[:, None]
        if self.jitter > 0:
            noise = rng.standard_normal(xyz.T.shape) * self.jitter
            xyz += np.clip(noise, -self.jitter_most, self.jitter_most).T
        out[:, :3] = xyz.T
        return out

    def _normalise_points(self, xyz: Float64s) -> Float64s:
        """Normalise points (3, N) in place."""
        if isinstance(self.normalise, PointStats):
            xyz -= np.array(self.normalise.mean)[:, None]
            xyz /= self.normalise.deviation
            return xyz
        if self.normalise == "none":
            return xyz
        # Points are added sequentially, as numpy adds rows of (N, 3), not pairwise, as it adds (3, N).
        xyz -= np.array([np.add.accumulate(axis)[-1] for axis in xyz])[:, None] / xyz.shape[1]
        x, y, z = squares = np.square(xyz)
        square = (x + y + z).max() if self.normalise == "ball" else np.ascontiguousarray(squares.T).mean()
        if square > 0:
            xyz /= np.sqrt(square)
        return xyz


def rotation(axis: Axis, rng: np.random.Generator) -> Float64s:
    """Draw a rotation matrix, float64 (3, 3): a uniform angle about one axis, or uniform over all rotations."""
    if axis == "any":
        a, b, c, d = (q := rng.standard_normal(4)) / np.linalg.norm(q)
        return np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d],
            ]
        )
    if axis == "up":
        raise ValueError("only a split knows which axis points upwards, so a loader must resolve 'up' to it")
    angle = rng.uniform(0, 2 * np.pi)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    turn = np.eye(3)
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
    return turn
