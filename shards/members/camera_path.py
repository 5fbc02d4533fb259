"""The kind `camera_path`: the pose of a camera in each frame of a video, float64 (T, 7), as NPY, and its lens.

`shards/media/camera_pose.py` says what the seven numbers are. The facts focal_x, focal_y, centre_x, centre_y are those
of a pinhole in pixels of the sample's video; the left upper corner of the picture is at 0, 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from maskstream.shards.media.camera_pose import POSE, Floats
from maskstream.shards.media.npy import NpyError, npy_bytes, npy_header, read_npy

from .member import Kind, Member

LENS = ("focal_x", "focal_y", "centre_x", "centre_y")
"""The facts of the lens."""
FARTHEST_M = 1e6
"""The farthest legal place from the origin on each axis."""
_UNIT = 1e-6


def camera_path_member(path: Floats, lens: tuple[float, float, float, float]) -> Member:
    """Poses (T, 7) as a member. lens: focal lengths and centre in pixels, as in `LENS`."""
    data = npy_bytes(path.astype("<f8"))
    facts: dict[str, int | float] = {"n_frames": len(path), "data_offset": npy_header(data).data_offset}
    return Member(kind=CAMERA_PATH.name, data=data, facts={**facts, **dict(zip(LENS, map(float, lens), strict=True))})


def camera_path_problems(member: Member) -> Iterator[str]:
    """Compare the header with the facts."""
    try:
        header = npy_header(member.data)
    except NpyError as error:
        yield str(error)
        return
    wanted = (int(member.facts["n_frames"]), POSE)
    if header.version != 1 or header.dtype != np.dtype("<f8") or header.fortran or header.shape != wanted:
        yield f"holds {header.dtype} {header.shape}, not float64 {wanted} in C order, as NPY 1.0"
    elif header.data_offset != member.facts["data_offset"]:
        yield f"begins at byte {header.data_offset}, which differs from the manifest"
    if lens_problem := problem_of_lens(*(float(member.facts[name]) for name in LENS)):
        yield lens_problem


def problem_of_lens(*lens: float) -> str:
    """What is wrong with a lens, or nothing."""
    if np.isfinite(lens).all() and min(lens[:2]) > 0:
        return ""
    return f"has the lens {', '.join(f'{n}={x:g}' for n, x in zip(LENS, lens, strict=True))}; focal lengths are above 0"


def problem_of_path(path: Floats) -> str:
    """What is wrong with poses (T, 7), or nothing."""
    if not (np.abs(path[:, :3]) < FARTHEST_M).all():
        return f"has a place that is not finite or farther than {FARTHEST_M:g} m away"
    lengths = np.linalg.norm(path[:, 3:], axis=1)
    if not (np.abs(lengths - 1) < _UNIT).all():
        return "has a rotation that is no unit quaternion"
    return ""


def camera_path_decode_problems(member: Member) -> Iterator[str]:
    """Find poses that are none."""
    try:
        path = read_npy(member.data)
    except NpyError:
        return  # camera_path_problems reports it
    if path.ndim == 2 and path.shape[1] == POSE and (problem := problem_of_path(path)):
        yield problem


CAMERA_PATH = Kind(
    name="camera_path",
    facts={"n_frames": int, "data_offset": int, **dict.fromkeys(LENS, float)},
    check=camera_path_problems,
    decode=camera_path_decode_problems,
)
