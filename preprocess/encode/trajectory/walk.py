"""A recorded walk: the frames, the depth and the pose of a camera on one clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ....shards.media.camera_pose import Floats

UInt8s = npt.NDArray[np.uint8]
UInt16s = npt.NDArray[np.uint16]

_MOST_MM = np.iinfo(np.uint16).max


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """T moments, `fps` a second. frames: uint8 (H, W, 3) each, RGB. depth: uint16 (H', W') each, as `millimetres` gives
    it. path: float64 (T, 7), poses as in `shards/media/camera_pose.py`. lens: focal lengths and centre in pixels of the
    frames (`LENS`).
    """

    frames: list[UInt8s]
    depth: list[UInt16s]
    path: Floats
    lens: tuple[float, float, float, float]
    fps: int


def millimetres(depth_m: npt.NDArray[np.floating]) -> UInt16s:
    """Distances along the camera's axis in metres as whole millimetres; 0, which means unknown, beyond 65.535 m."""
    rounded = np.nan_to_num(np.rint(1000 * depth_m), nan=0, posinf=0, neginf=0)
    return np.where((rounded > 0) & (rounded <= _MOST_MM), rounded, 0).astype(np.uint16)
