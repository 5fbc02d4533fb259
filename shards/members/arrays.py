"""Kinds of members that are arrays of numbers, each checked against its columns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.shards.arrays import Float64s, Int64s
from maskstream.shards.media.camera_pose import POSE
from maskstream.shards.media.h36m import JOINTS
from maskstream.shards.media.mesh_members import MeshError, encode_mesh, read_mesh
from maskstream.shards.media.npy import NpyError, NpyHeader, encode_npy, read_npy, read_npy_header

from .member import Check, Kind, Member


def check_header_of(check: Callable[[Member, NpyHeader], Iterator[str]]) -> Check:
    """Return the check of a member's NPY header; data that is not NPY is a problem too."""

    @wraps(check)
    def problems(member: Member) -> Iterator[str]:
        try:
            header = read_npy_header(member.data)
        except NpyError as error:
            yield str(error)
        else:
            yield from check(member, header)

    return problems


def header_problems(member: Member, header: NpyHeader, dtype: str, shape: tuple[int, ...]) -> Iterator[str]:
    """Compare the header of an array with the manifest.

    Args:
        member: Member with its facts.
        header: Parsed header of the array.
        dtype: Expected dtype.
        shape: Expected shape.
    """
    in_fortran_order = header.fortran and len(header.shape) > 1
    found = (header.version, header.dtype.str, header.shape, in_fortran_order, header.data_offset)
    wanted = (1, dtype, shape, False, member.facts["data_offset"])
    if found != wanted:
        yield f"has (version, dtype, shape, Fortran order, data offset) {found}, but the manifest lists {wanted}"


def check_numbers_of(check: Callable[[npt.NDArray[Any]], Iterator[str]]) -> Check:
    """Return the check of a member's numbers; `check_header_of` reports data that is not NPY."""

    @wraps(check)
    def problems(member: Member) -> Iterator[str]:
        with suppress(NpyError):
            yield from check(read_npy(member.data))

    return problems


@check_numbers_of
def decode_problems(array: npt.NDArray[Any]) -> Iterator[str]:
    """Find rows with numbers that are not finite."""
    rows = array.reshape(len(array) if array.ndim else 1, -1)
    if bad := int((~np.isfinite(rows).all(axis=1)).sum()):
        yield f"has {bad} rows with a number that is not finite"


def npy_member(
    kind: str,
    array: npt.NDArray[Any],
    facts: Mapping[str, int | float] | None = None,
    words: Mapping[str, str] | None = None,
    lists: Mapping[str, Int64s] | None = None,
) -> Member:
    """An array as a member of a kind, with its data offset, which reading a part needs."""
    data = encode_npy(array)
    placed = {**(facts or {}), "data_offset": read_npy_header(data).data_offset}
    return Member(kind=kind, data=data, facts=placed, words={**(words or {})}, lists={**(lists or {})})


def array_member(array: npt.NDArray[Any]) -> Member:
    """Return an array of any shape (n, ...) as a member, with its shape and dtype."""
    shape = np.array(array.shape, dtype=np.int64)
    return npy_member(ARRAY.name, array, words={"dtype": array.dtype.str}, lists={"shape": shape})


@check_header_of
def find_array_problems(member: Member, header: NpyHeader) -> Iterator[str]:
    """Compare the header with the columns."""
    return header_problems(member, header, member.words["dtype"], tuple(member.lists["shape"].tolist()))


ARRAY = Kind(
    name="array",
    facts={"data_offset": int},
    words=("dtype",),
    lists=("shape",),
    check=find_array_problems,
    decode=decode_problems,
)
"""One array of numbers as NPY 1.0, in C order."""


FEATURES = "features"
"""Return the word with the names of the columns of points after x, y, z."""


def make_points_member(points: npt.NDArray[np.floating], columns: Sequence[str] = ()) -> Member:
    """Return points as a member of float32.

    Args:
        points: (N, 3 or more).
        columns: Names of the columns; placeholders such as `feature 0` are not stored.
    """
    facts = {"n_points": len(points), "n_columns": points.shape[1]}
    named = columns[3:] and not all(name.startswith("feature ") for name in columns[3:])
    words = {FEATURES: ",".join(columns[3:])} if named else {}
    return npy_member(POINTS.name, points.astype("<f4"), facts, words)


@check_header_of
def find_points_problems(member: Member, header: NpyHeader) -> Iterator[str]:
    """Compare the header with the columns."""
    columns = int(member.facts["n_columns"])
    yield from header_problems(member, header, "<f4", (int(member.facts["n_points"]), columns))
    names = member.words.get(FEATURES)
    if columns < 3 or (names is not None and len(names.split(",")) != columns - 3):
        yield f"has {columns - 3} columns after x, y, z, but the manifest names {names or 'none'}"


POINTS = Kind(
    name="points",
    facts={"n_points": int, "n_columns": int, "data_offset": int},
    words=(FEATURES,),
    check=find_points_problems,
    decode=decode_problems,
)
"""A point cloud, float32 (N, 3 or more), as NPY; the word `features` names its columns after x, y, z, with commas."""


def make_poses_member(poses: npt.NDArray[np.floating], rate_hz: float) -> Member:
    """Return poses (T, 17, 3) as a member of float32."""
    return npy_member(POSES.name, poses.astype("<f4"), {"n_frames": len(poses), "rate_hz": float(rate_hz)})


@check_header_of
def find_poses_problems(member: Member, header: NpyHeader) -> Iterator[str]:
    """Compare the header with the facts."""
    yield from header_problems(member, header, "<f4", (int(member.facts["n_frames"]), len(JOINTS), 3))
    if not member.facts["rate_hz"] > 0:
        yield f"has {member.facts['rate_hz']} frames per second"


POSES = Kind(
    name="poses",
    facts={"n_frames": int, "rate_hz": float, "data_offset": int},
    check=find_poses_problems,
    decode=decode_problems,
)
"""A motion sequence of the 17 joints of Human3.6M at a fixed rate, float32 (T, 17, 3), as NPY. Positions are in metres,
x and y along the ground and z upwards, right-handed.
"""


LENS = ("focal_x", "focal_y", "centre_x", "centre_y")
"""The facts of the lens."""
FARTHEST_M = 1e6
"""Largest allowed distance from the origin on each axis."""
_UNIT_LENGTH = 1e-6


def make_camera_path_member(path: Float64s, lens: tuple[float, float, float, float]) -> Member:
    """Return poses (T, 7) as a member. lens: Focal lengths and centre in pixels, as in `LENS`."""
    facts = {"n_frames": len(path), "data_offset": 0, **dict(zip(LENS, map(float, lens), strict=True))}
    return npy_member(CAMERA_PATH.name, path.astype("<f8"), facts)


@check_header_of
def find_camera_path_problems(member: Member, header: NpyHeader) -> Iterator[str]:
    """Compare the header with the facts."""
    yield from header_problems(member, header, "<f8", (int(member.facts["n_frames"]), POSE))
    if lens_problem := check_lens(*(float(member.facts[name]) for name in LENS)):
        yield lens_problem


def check_lens(*lens: float) -> str:
    """Return the problem with a lens, or ""."""
    if np.isfinite(lens).all() and min(lens[:2]) > 0:
        return ""
    return (
        f"has the lens {', '.join((f'{n}={x:g}' for n, x in zip(LENS, lens, strict=True)))}; focal lengths must "
        "be above 0"
    )


def check_path_poses(path: Float64s) -> str:
    """Return the problem with poses (T, 7), or ""."""
    if not (np.abs(path[:, :3]) < FARTHEST_M).all():
        return f"has a position that is not finite or more than {FARTHEST_M:g} m away"
    lengths = np.linalg.norm(path[:, 3:], axis=1)
    if not (np.abs(lengths - 1) < _UNIT_LENGTH).all():
        return "has a rotation that is not a unit quaternion"
    return ""


@check_numbers_of
def find_camera_path_decode_problems(path: npt.NDArray[Any]) -> Iterator[str]:
    """Find invalid poses."""
    if path.ndim == 2 and path.shape[1] == POSE and (problem := check_path_poses(path)):
        yield problem


CAMERA_PATH = Kind(
    name="camera_path",
    facts={"n_frames": int, "data_offset": int, **dict.fromkeys(LENS, float)},
    check=find_camera_path_problems,
    decode=find_camera_path_decode_problems,
)
"""The pose of a camera in each frame of a video, float64 (T, 7), as NPY, and its lens.

`shards/media/camera_pose.py` describes the seven numbers. The facts focal_x, focal_y, centre_x and centre_y describe a
pinhole camera in pixels of the sample's video; the upper left corner of the image is at 0, 0.
"""


def make_mesh_member(facts: dict[str, int], **arrays: npt.NDArray[Any]) -> Member:
    """Return the arrays of a mesh as a member."""
    return Member(kind=MESH.name, data=encode_mesh(**arrays), facts=dict(facts))


def find_mesh_problems(member: Member) -> Iterator[str]:
    """Compare the arrays with each other and with the facts."""
    try:
        nodes, cells, *_ = read_mesh(member.data).values()
    except MeshError as error:
        yield str(error)
        return
    n_nodes, n_cells = (int(member.facts[name]) for name in ("n_nodes", "n_cells"))
    if (len(nodes), len(cells)) != (n_nodes, n_cells):
        yield f"has {len(nodes)} nodes and {len(cells)} cells, but the manifest lists {n_nodes} and {n_cells}"


def find_mesh_decode_problems(member: Member) -> Iterator[str]:
    """Find coordinates that are not finite."""
    try:
        nodes, *_ = read_mesh(member.data).values()
    except MeshError:
        return  # mesh_problems reports it
    if not np.isfinite(nodes).all():
        yield "a coordinate is not finite"


MESH = Kind(
    name="mesh", facts={"n_nodes": int, "n_cells": int}, check=find_mesh_problems, decode=find_mesh_decode_problems
)
"""The arrays of a mesh as uncompressed NPZ."""
