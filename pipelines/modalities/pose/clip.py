"""A clip of poses: its frames, and the random cameras that look at it.

MPM (Zhang et al., 2023) pre-trains on motions without cameras by drawing them, as PoseAug (Gong et al., 2021) does. The
defaults are near Human3.6M's four cameras: their focal length is 1.145 widths of the picture, and they stand 4 to 6 m
away. The principal point is the middle, and there is no lens distortion.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from maskstream.shards.config import Config, check_types


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseClip(Config):
    """A clip of `frames` poses, `stride` stored frames apart, around a frame in its middle.

    middle: "random" draws it uniformly of all frames, "center" takes that of the motion. A clip that runs off an end of
    its motion repeats the pose there, as in MPM (Zhang et al., 2023): 243 frames with stride 2, of motions at 50 Hz.
    """

    frames: int = 243
    stride: int = 2
    middle: Literal["random", "center"] = "random"

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("frames", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"PoseClip({name}={getattr(self, name)}): it must be at least 1")
        if self.middle not in ("random", "center"):
            raise ValueError(f"PoseClip(middle={self.middle!r}): legal are 'random' and 'center'")

    def numbers(self, n_frames: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draws the clip's frame numbers, int64 (frames,), non-decreasing, in a motion of `n_frames` frames."""
        middle = int(rng.integers(n_frames)) if self.middle == "random" else n_frames // 2
        offsets = (np.arange(self.frames, dtype=np.int64) - self.frames // 2) * self.stride
        return np.clip(middle + offsets, 0, n_frames - 1)


Float32s = npt.NDArray[np.float32]


class Seen(NamedTuple):
    """A clip as a camera sees it: pose_3d (T, J, 3), pose_2d (T, J, 2) and root (T, 3) of `PoseBatch`; focal."""

    pose_3d: Float32s
    pose_2d: Float32s
    root: Float32s
    focal: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Cameras(Config):
    """Cameras around a clip, each number drawn uniformly between two.

    distance_m: from the middle of the pelvis' way, in front of the farthest joint on it. elevation_deg: above the
    horizon; the direction around the clip is any. focal: the focal length, in half widths of the picture. aim_m: how
    far from the middle the camera may look, along each axis.
    """

    distance_m: tuple[float, float] = (4.0, 6.0)
    elevation_deg: tuple[float, float] = (-5.0, 25.0)
    focal: tuple[float, float] = (2.29, 2.29)
    aim_m: float = 0.3

    def __post_init__(self) -> None:
        for name in ("distance_m", "elevation_deg", "focal"):
            low, high = getattr(self, name)
            if not low <= high:
                raise ValueError(f"Cameras({name}={getattr(self, name)}): give the smaller number first")
        if self.distance_m[0] <= 0 or self.focal[0] <= 0 or not 0 <= self.aim_m < self.distance_m[0]:
            raise ValueError(f"distances and focal lengths are above 0, and aim_m below every distance, got {self}")
        if not -90 < self.elevation_deg[0] <= self.elevation_deg[1] < 90:
            raise ValueError(
                f"Cameras(elevation_deg={self.elevation_deg}): legal are angles between -90 and 90 degrees"
            )

    def __call__(self, poses: Float32s, rng: np.random.Generator) -> Seen:
        """Draws a camera and takes pictures of poses (T, J, 3) in metres, z upwards."""
        places = poses.astype(np.float64)
        middle = places[:, 0].mean(axis=0)
        reach = float(np.square(places - middle).sum(axis=-1).max()) ** 0.5
        turn = rng.uniform(0, 2 * np.pi)
        rise = np.radians(rng.uniform(*self.elevation_deg))
        outwards = np.array([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise)])
        at = middle + outwards * (reach + rng.uniform(*self.distance_m))
        axes = _looking(middle + rng.uniform(-self.aim_m, self.aim_m, 3) - at)
        focal = float(rng.uniform(*self.focal))
        return seen((places - at) @ axes.T, focal)


def _looking(direction: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The axes (3, 3) of an upright camera that looks in a direction, not up or down: right, down and forwards."""
    x, y, z = direction.tolist()
    flat, length = hypot(x, y), hypot(x, y, z)
    right, forwards = (y / flat, -x / flat, 0.0), (x / length, y / length, z / length)
    down = (x * z / (flat * length), y * z / (flat * length), -flat / length)
    return np.array([right, down, forwards])


def seen(places: npt.NDArray[np.float64], focal: float) -> Seen:
    """A clip of joints (T, J, 3) in the coordinates of a camera, all before it, and its pictures."""
    root = places[:, 0]
    flat = focal * places[..., :2] / places[..., 2:]
    return Seen(
        pose_3d=(places - root[:, None]).astype(np.float32),
        pose_2d=flat.astype(np.float32),
        root=root.astype(np.float32),
        focal=focal,
    )


def mirrored(clip: Seen, mirror: npt.NDArray[np.int64]) -> Seen:
    """The clip with left and right changed; `mirror`: the joint that each one becomes, (J,)."""
    signs = np.array([-1, 1, 1], dtype=np.float32)
    return Seen(
        pose_3d=(clip.pose_3d * signs)[:, mirror],
        pose_2d=(clip.pose_2d * signs[:2])[:, mirror],
        root=clip.root * signs,
        focal=clip.focal,
    )
