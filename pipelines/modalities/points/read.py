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
        member = _Member.of(store, place, facts)
        if member.columns < 3 + self.features:
            raise PointsError(f"has {member.columns} columns; x, y, z and {self.features} features were asked for")
        first, stop = self.rows or (0, member.rows)
        stop = min(stop, member.rows)
        if first >= stop:
            raise PointsError(f"has {member.rows} rows, none of the rows {self.rows}")
        got = self._drawn(member, first, stop - first, rng)[:, : 3 + self.features]
        if not np.isfinite(got).all():
            raise PointsError("holds a number that is not finite")
        return np.ascontiguousarray(got), member.read_bytes

    def _drawn(self, member: _Member, first: int, n: int, rng: np.random.Generator) -> Float32s:
        rows: Float32s
        if self.replace:
            rows = member.run(first, n)[rng.integers(n, size=self.points)]
            return rows
        if n <= self.points:
            extra = rng.integers(n, size=self.points - n)
            rows = member.run(first, n)[np.concatenate([rng.permutation(n), extra])]
            return rows
        start = int(rng.integers(n))
        ahead = min(n - start, self.points)
        runs = [member.run(first + start, ahead), member.run(first, self.points - ahead)]
        return np.concatenate(runs)


@dataclass(kw_only=True, slots=True)
class _Member:
    """An opened member: where its rows begin in the tar and what form they have."""

    store: Store
    name: str
    begin: int
    rows: int
    columns: int
    read_bytes: int

    @classmethod
    def of(cls, store: Store, place: Range, facts: Mapping[str, int | float]) -> _Member:
        """As the manifest says; nothing is read."""
        rows, columns, begin = (int(facts[name]) for name in ("n_points", "n_columns", "data_offset"))
        if begin + 4 * rows * columns != place.size:
            raise PointsError(
                f"{rows} rows of {columns} float32 and a header of {begin} bytes are not {place.size} bytes"
            )
        return cls(store=store, name=place.name, begin=place.offset + begin, rows=rows, columns=columns, read_bytes=0)

    def run(self, first: int, count: int) -> Float32s:
        """Rows [first, first + count): float32 (count, columns)."""
        row_bytes = 4 * self.columns
        data = self.store.read(self.name, self.begin + first * row_bytes, count * row_bytes) if count else b""
        self.read_bytes += len(data)
        return np.frombuffer(data, dtype="<f4").reshape(count, self.columns)
