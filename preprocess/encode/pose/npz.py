"""Reads motions that you wrote yourself as NPZ: `positions` and `rate_hz`.

positions: real numbers (T, 17, 3), Human3.6M's joints in metres, right-handed, z upwards. Or (T, J, 3), with `joints`,
whole numbers (17,): which of the J joints is each of Human3.6M's. rate_hz: one number, frames per second. Pickles are
never read, so files that hold dictionaries (such as data_3d_h36m.npz of VideoPose3D) must be written anew.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.source_file import check_source_file
from maskstream.preprocess.source import RejectError
from maskstream.shards.errors import DataError
from maskstream.shards.media.h36m import JOINTS
from maskstream.shards.media.npy import read_npy

from .motion import Motion

_MOST_BYTES = 1 << 31
"""The largest array that is unpacked."""
_DAMAGED = (zipfile.BadZipFile, NotImplementedError, ValueError, LookupError, EOFError, RuntimeError, DataError)
LEGAL = "a motion needs positions (T, 17, 3) and rate_hz; see preprocess/encode/pose/npz.py"


def read_npz(path: Path) -> Motion:
    """The motion of a file. Raises RejectError if the arrays are not as above."""
    check_source_file(path)
    found = _arrays(path)
    if missing := [name for name in ("positions", "rate_hz") if name not in found]:
        raise RejectError("decode", f"has no array {missing[0]!r}, only {', '.join(found) or 'none'}; {LEGAL}")
    positions, rate, joints = found["positions"], found["rate_hz"], found.get("joints")
    if rate.size != 1 or not 0 < (rate_hz := float(rate.reshape(-1)[0].real)) < float("inf"):
        raise RejectError("decode", f"rate_hz is {rate.tolist()}; it is one number above 0, frames per second")
    if positions.ndim != 3 or positions.shape[2] != 3 or positions.dtype.kind not in "fiu":
        raise RejectError("decode", f"positions are {positions.dtype} {positions.shape}; {LEGAL}")
    chosen = np.arange(len(JOINTS)) if joints is None else joints
    if chosen.shape != (len(JOINTS),) or chosen.dtype.kind not in "iu":
        raise RejectError("decode", f"joints are {chosen.dtype} {chosen.shape}; {len(JOINTS)} whole numbers are legal")
    if chosen.min() < 0 or chosen.max() >= positions.shape[1] or (joints is None and positions.shape[1] != len(JOINTS)):
        raise RejectError(
            "decode", f"positions have {positions.shape[1]} joints, joints are {chosen.tolist()}; {LEGAL}"
        )
    places = positions[:, chosen].astype(np.float64)
    return Motion(places=places, names=JOINTS, times_s=np.arange(len(places)) / rate_hz)


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays that a motion has."""
    wanted = ("positions.npy", "rate_hz.npy", "joints.npy")
    try:
        with zipfile.ZipFile(path) as file:
            members = {member.filename: member for member in file.infolist() if member.filename in wanted}
            if large := [name for name, member in members.items() if member.file_size > _MOST_BYTES]:
                raise RejectError("decode", f"{large[0]} declares more than {_MOST_BYTES:,} bytes, which are the most")
            return {name.removesuffix(".npy"): read_npy(file.read(member)) for name, member in members.items()}
    except _DAMAGED as error:
        raise RejectError("decode", f"is no NPZ file of numbers ({type(error).__name__}: {error}); {LEGAL}") from error
