"""The kind `points`: a point cloud, float32 (N, 3 or more), as NPY."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from maskstream.shards.media.npy import NpyError, npy_bytes, npy_header, read_npy

from .member import Kind, Member


def points_member(points: npt.NDArray[np.floating]) -> Member:
    """Points (N, 3 or more) as a member of float32."""
    data = npy_bytes(points.astype("<f4"))
    facts = {"n_points": len(points), "n_columns": points.shape[1], "data_offset": npy_header(data).data_offset}
    return Member(kind=POINTS.name, data=data, facts=dict(facts))


def points_problems(member: Member) -> Iterator[str]:
    """Compare the header with the facts."""
    try:
        header = npy_header(member.data)
    except NpyError as error:
        yield str(error)
        return
    shape, facts = header.shape, member.facts
    if header.version != 1:
        yield f"is no NPY 1.0, but {header.version}.0"
    if len(shape) != 2 or shape[1] < 3 or header.dtype != np.dtype("<f4") or header.fortran:
        yield f"holds {header.dtype} {shape}, not float32 (N, 3 or more) in C order"
        return
    if shape[0] != facts["n_points"]:
        yield f"has {shape[0]} points, not {facts['n_points']}"
    if shape[1] != facts["n_columns"] or header.data_offset != facts["data_offset"]:
        yield f"has {shape[1]} columns from byte {header.data_offset}, which differs from the manifest"


def points_decode_problems(member: Member) -> Iterator[str]:
    """Find points with numbers that are not finite."""
    try:
        points = read_npy(member.data)
    except NpyError:
        return  # points_problems reports it
    if bad := int((~np.isfinite(points).all(axis=-1)).sum()):
        yield f"has {bad} points with a number that is not finite"


POINTS = Kind(
    name="points",
    facts={"n_points": int, "n_columns": int, "data_offset": int},
    check=points_problems,
    decode=points_decode_problems,
)
