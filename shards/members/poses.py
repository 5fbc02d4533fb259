"""The kind `poses`: a motion of the 17 joints of Human3.6M at a fixed rate, float32 (T, 17, 3), as NPY.

Positions are in metres, x and y along the ground and z upwards, right-handed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from maskstream.shards.media.h36m import JOINTS
from maskstream.shards.media.npy import NpyError, npy_bytes, npy_header, read_npy

from .member import Kind, Member


def poses_member(poses: npt.NDArray[np.floating], rate_hz: float) -> Member:
    """Poses (T, 17, 3) as a member of float32."""
    data = npy_bytes(poses.astype("<f4"))
    facts: dict[str, int | float] = {
        "n_frames": len(poses),
        "rate_hz": float(rate_hz),
        "data_offset": npy_header(data).data_offset,
    }
    return Member(kind=POSES.name, data=data, facts=facts)


def poses_problems(member: Member) -> Iterator[str]:
    """Compare the header with the facts."""
    try:
        header = npy_header(member.data)
    except NpyError as error:
        yield str(error)
        return
    wanted = (int(member.facts["n_frames"]), len(JOINTS), 3)
    if header.version != 1 or header.dtype != np.dtype("<f4") or header.fortran or header.shape != wanted:
        yield f"holds {header.dtype} {header.shape}, not float32 {wanted} in C order, as NPY 1.0"
    elif header.data_offset != member.facts["data_offset"]:
        yield f"begins at byte {header.data_offset}, which differs from the manifest"
    if not member.facts["rate_hz"] > 0:
        yield f"has {member.facts['rate_hz']} frames per second"


def poses_decode_problems(member: Member) -> Iterator[str]:
    """Find poses with numbers that are not finite."""
    try:
        poses = read_npy(member.data)
    except NpyError:
        return  # poses_problems reports it
    if bad := int((~np.isfinite(poses).reshape(len(poses), -1).all(axis=1)).sum()):
        yield f"has {bad} poses with a number that is not finite"


POSES = Kind(
    name="poses",
    facts={"n_frames": int, "rate_hz": float, "data_offset": int},
    check=poses_problems,
    decode=poses_decode_problems,
)
