"""Which rows of a cloud a sample takes, and the reading of just those.

A member `points.npy` is a header, of which the manifest knows all, and rows of float32. preprocess lays the rows in
random order, so any run of rows is a random sample of the cloud without replacement: it is one read, however large the
cloud is. A run begins anywhere and goes on at row 0 behind the last one, so every row is equally likely.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ....shards.config import Config
from ....shards.stores.base import Range, Store

Float32s = npt.NDArray[np.float32]


class PointsError(Exception):
    """A member is not what a shard of points holds; the message says what was found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PointSelection(Config):
    """`points` points of a cloud.

    replace: drawn one by one from all of the cloud with replacement, as DiT-3D does (the whole cloud is read then);
    without it a run of rows (see above), and a cloud that has too few gives all of them and repeats some, drawn.
    rows: only those of the cloud's rows [first, stop) count, such as (0, 10000), PointFlow's training points of
    ShapeNet; a cloud with fewer rows gives what it has of them. features: how many columns behind x, y, z are taken.
    """

    points: int = 2048
    replace: bool = False
    rows: tuple[int, int] | None = None
    features: int = 0

    def __post_init__(self) -> None:
        if self.points < 1 or self.features < 0:
            raise ValueError(f"points is 1 or more and features 0 or more, got {self.points} and {self.features}")
        if self.rows is not None and not 0 <= self.rows[0] < self.rows[1]:
            raise ValueError(f"rows are [first, stop) with 0 <= first < stop, got {self.rows}")

    def read(
        self, store: Store, place: Range, facts: Mapping[str, int | float], rng: np.random.Generator
    ) -> tuple[Float32s, int]:
        """The points drawn from the member at `place`, float32 (points, 3 + features), and the bytes read.

        facts: of the member, as the manifest has them. PointsError where the member has not as many columns, or a
        number is not finite.
        """
        rows = self.rows_of(place, facts, rng)
        return self.taken(store, rows), rows.size_bytes

    def rows_of(self, place: Range, facts: Mapping[str, int | float], rng: np.random.Generator) -> Rows:
        """Draws the rows of the member at `place`; nothing is read. PointsError where it has not what is asked for."""
        n_rows, columns, begin = (int(facts[name]) for name in ("n_points", "n_columns", "data_offset"))
        if begin + 4 * n_rows * columns != place.size:
            raise PointsError(
                f"{n_rows} rows of {columns} float32 and a header of {begin} bytes are not {place.size} bytes"
            )
        if columns < 3 + self.features:
            raise PointsError(f"has {columns} columns; x, y, z and {self.features} features were asked for")
        first, stop = self.rows or (0, n_rows)
        stop = min(stop, n_rows)
        if first >= stop:
            raise PointsError(f"has {n_rows} rows, none of the rows {self.rows}")

        def run(start: int, count: int) -> Range:
            return Range(place.name, place.offset + begin + 4 * columns * start, 4 * columns * count)

        n = stop - first
        if self.replace:
            return Rows(ranges=(run(first, n),), columns=columns, order=rng.integers(n, size=self.points))
        if n <= self.points:
            extra = rng.integers(n, size=self.points - n)
            order = np.concatenate([rng.permutation(n), extra])
            return Rows(ranges=(run(first, n),), columns=columns, order=order)
        start = int(rng.integers(n))
        ahead = min(n - start, self.points)
        runs = [run(first + start, ahead), run(first, self.points - ahead)]
        return Rows(ranges=tuple(one for one in runs if one.size), columns=columns, order=None)

    def taken(self, store: Store, rows: Rows) -> Float32s:
        """Reads the rows that were drawn, float32 (points, 3 + features); PointsError where one is not finite."""
        data = b"".join(store.read_many(rows.ranges))
        read = np.frombuffer(data, dtype="<f4").reshape(-1, rows.columns)
        got = (read if rows.order is None else read[rows.order])[:, : 3 + self.features]
        if not np.isfinite(got).all():
            raise PointsError("holds a number that is not finite")
        return np.ascontiguousarray(got)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Rows that were drawn: where they lie, and which of those are taken in which order, int64 (points,), None for all
    as they are.
    """

    ranges: tuple[Range, ...]
    columns: int
    order: npt.NDArray[np.int64] | None

    @property
    def size_bytes(self) -> int:
        """How much is read."""
        return sum(one.size for one in self.ranges)
