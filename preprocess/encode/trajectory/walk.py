"""A recorded walk: the frames, the depth and the pose of a camera on one clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.shards.media.camera_pose import Floats

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


def in_blocks(walk: Walk, block: int) -> Walk:
    """The middle of a walk's pictures, with sides that are multiples of `block` in pixels of the frames, so that
    encoding cuts nothing off that depth and lens would not know of.
    """
    whole = np.array(walk.frames[0].shape[:2])
    kept = whole // block * block
    if (kept == whole).all() or not kept.all():
        return walk
    first = (whole - kept) // 2
    fx, fy, cx, cy = walk.lens

    def middle(picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
        scale = np.array(picture.shape[:2]) / whole
        (top, left), (bottom, right) = (np.rint(at * scale).astype(int) for at in (first, first + kept))
        return np.ascontiguousarray(picture[top:bottom, left:right])

    return Walk(
        frames=[middle(one) for one in walk.frames],
        depth=[middle(one) for one in walk.depth],
        path=walk.path,
        lens=(fx, fy, cx - float(first[1]), cy - float(first[0])),
        fps=walk.fps,
    )


def millimetres(depth_m: npt.NDArray[np.floating]) -> UInt16s:
    """Distances along the camera's axis in metres as whole millimetres; 0, which means unknown, beyond 65.535 m."""
    rounded = np.nan_to_num(np.rint(1000 * depth_m), nan=0, posinf=0, neginf=0)
    return np.where((rounded > 0) & (rounded <= _MOST_MM), rounded, 0).astype(np.uint16)
