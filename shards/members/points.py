"""The kind `points`: a point cloud, float32 (N, 3 or more), as NPY."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .array import data_offset, npy_bytes, read_array
from .member import Kind, Member


def points_member(points: npt.NDArray[np.floating]) -> Member:
    """Points (N, 3 or more) as a member of float32."""
    data = npy_bytes(points.astype("<f4"))
    facts = {"n_points": len(points), "n_columns": points.shape[1], "data_offset": data_offset(data)}
    return Member(kind=POINTS.name, data=data, facts=dict(facts))


def points_problems(member: Member) -> Iterator[str]:
    """Compare the header with the facts."""
    points = read_array(member.data)
    if isinstance(points, str):
        yield points
        return
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype != np.float32:
        yield f"holds {points.dtype} {points.shape}, not float32 (N, 3 or more)"
        return
    try:
        begin = data_offset(member.data)
    except ValueError as error:
        yield str(error)
        return
    facts = member.facts
    if len(points) != facts["n_points"]:
        yield f"has {len(points)} points, not {facts['n_points']}"
    if points.shape[1] != facts["n_columns"] or begin != facts["data_offset"]:
        yield f"has {points.shape[1]} columns from byte {begin}, which differs from the manifest"


def points_decode_problems(member: Member) -> Iterator[str]:
    """Find points with numbers that are not finite."""
    points = read_array(member.data)
    if not isinstance(points, str) and (bad := int((~np.isfinite(points).all(axis=-1)).sum())):
        yield f"has {bad} points with a number that is not finite"


POINTS = Kind(
    name="points",
    facts={"n_points": int, "n_columns": int, "data_offset": int},
    check=points_problems,
    decode=points_decode_problems,
)
