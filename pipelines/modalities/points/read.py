"""Draws points of a cloud, and reads only their rows.

A member `points.npy` is a header, whose contents the manifest repeats, and rows of float32. The rows are stored in
random order, so any run of consecutive rows is a random sample of the cloud without replacement, and one read suffices,
however large the cloud is. A run starts at a uniform row and wraps around at the last one, so every row is equally
likely.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.shards.config import Config
from maskstream.shards.errors import DataError
from maskstream.shards.stores.base import Range, Store

Float32s = npt.NDArray[np.float32]

_FARTHEST = 1e18


class PointsError(DataError):
    """A member does not hold the requested points; the message says what it holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PointSelection(Config):
    """The draw of `points` points from each cloud.

    replace: True draws every point from the whole cloud with replacement, as DiT-3D does, which reads the whole cloud.
    False reads a run of consecutive rows; a smaller cloud gives all its points and random repetitions. rows: restricts
    the draw to the rows [first, stop), such as (0, 10000) for PointFlow's training points of ShapeNet; rows beyond the
    end of a cloud are ignored. features: the number of columns to take after x, y, z.
    """

    points: int = 2048
    replace: bool = False
    rows: tuple[int, int] | None = None
    features: int = 0

    def __post_init__(self) -> None:
        if self.points < 1 or self.features < 0:
            raise ValueError(
                f"points must be at least 1 and features at least 0, got {self.points} and {self.features}"
            )
        if self.rows is not None and not 0 <= self.rows[0] < self.rows[1]:
            raise ValueError(f"rows must be (first, stop) with 0 <= first < stop, got {self.rows}")

    def read(
        self, store: Store, place: Range, facts: Mapping[str, int | float], rng: np.random.Generator
    ) -> tuple[Float32s, int]:
        """Draws and reads points of the member at `place`: float32 (points, 3 + features), and the bytes read.

        facts: the member's facts in the manifest. Raises PointsError if the member has too few columns or rows, or
        holds a number that is not finite.
        """
        rows = self.rows_of(place, facts, rng)
        return self.taken(store.read_many(rows.ranges), rows), rows.size_bytes

    def rows_of(self, place: Range, facts: Mapping[str, int | float], rng: np.random.Generator) -> PointPlan:
        """Draws the rows of the member at `place`, without reading; raises PointsError if it lacks rows or columns."""
        n_rows, columns, begin = (int(facts[name]) for name in ("n_points", "n_columns", "data_offset"))
        if min(n_rows, columns, begin) < 0 or begin + 4 * n_rows * columns != place.size:
            raise PointsError(
                f"has {place.size} bytes, not {begin} bytes of header and {n_rows} rows of {columns} float32 as the "
                "manifest says"
            )
        if columns < 3 + self.features:
            raise PointsError(f"has {columns} columns, fewer than x, y, z and features={self.features}")
        first, stop = self.rows or (0, n_rows)
        stop = min(stop, n_rows)
        if first >= stop:
            raise PointsError(f"has {n_rows} rows, none of them in rows={self.rows}")

        def run(start: int, count: int) -> Range:
            return Range(place.name, place.offset + begin + 4 * columns * start, 4 * columns * count)

        n = stop - first
        if self.replace:
            return PointPlan(ranges=(run(first, n),), columns=columns, order=rng.integers(n, size=self.points))
        if n <= self.points:
            extra = rng.integers(n, size=self.points - n)
            order = np.concatenate([rng.permutation(n), extra])
            return PointPlan(ranges=(run(first, n),), columns=columns, order=order)
        start = int(rng.integers(n))
        ahead = min(n - start, self.points)
        runs = [run(first + start, ahead), run(first, self.points - ahead)]
        return PointPlan(ranges=tuple(one for one in runs if one.size), columns=columns, order=None)

    def taken(self, data: Sequence[bytes], rows: PointPlan) -> Float32s:
        """The drawn rows of what was read: float32 (points, 3 + features); PointsError if a number is not finite."""
        read = np.frombuffer(b"".join(data), dtype="<f4").reshape(-1, rows.columns)
        got = (read if rows.order is None else read[rows.order])[:, : 3 + self.features]
        if not np.isfinite(got).all():
            raise PointsError("holds a number that is not finite")
        if np.abs(got[:, :3]).max() > _FARTHEST:
            raise PointsError(f"has a point farther than {_FARTHEST:g} from 0, whose square is no float32")
        return np.ascontiguousarray(got)


@dataclass(frozen=True, kw_only=True, slots=True)
class PointPlan:
    """The drawn rows of a cloud.

    ranges: the byte ranges to read. columns: the columns of a stored row. order: int64 (points,), the points as indexes
    into the rows read; None for all rows in their order.
    """

    ranges: tuple[Range, ...]
    columns: int
    order: npt.NDArray[np.int64] | None

    @property
    def size_bytes(self) -> int:
        """The number of bytes to read."""
        return sum(one.size for one in self.ranges)
