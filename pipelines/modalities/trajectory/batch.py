"""Batches of trajectory clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.stream.batch import Batch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class TrajectoryBatch(Batch):
    """A batch of B clips of T frames, uint8 (B, T, H, W, 3), with depth, camera poses and waypoints.

    The last frame of a clip is the present. A mirrored clip has mirrored poses and waypoints. See `Batch` for shared
    fields.

    Attributes:
        video: uint8 (B, T, H, W, 3): RGB frames.
        depth: float32 (B, T, H, W): metres along the camera's axis, 0 where unknown, for the same frames and crops;
            None if the loader reads no depth.
        mask: Masks on the (t, h, w) token grid, shared by colour and depth; None if the loader has no mask.
        pts_s: float64 (B, T): time of each frame in seconds from the start of its trajectory.
        pose: float32 (B, T, 7): camera pose in each frame relative to the present camera: position in metres (x to the
            right, y downwards, z forward), then the unit quaternion w, x, y, z with w >= 0.
        waypoint: float32 (B, 3): displacement after `ahead_s` seconds along the ground: metres to the right, metres
            forward, and the turn to the right in radians.
        lens: float32 (B, 4): focal lengths and centre (fx, fy, cx, cy) in pixels of `video`.
    """

    video: Tensor
    depth: Tensor | None
    mask: MaskBatch | None
    pts_s: Tensor
    pose: Tensor
    waypoint: Tensor
    lens: Tensor

    @property
    def clips(self) -> VideoBatch:
        """Video part of the batch."""
        return VideoBatch(video=self.video, mask=self.mask, flow=None, pts_s=self.pts_s, key=self.key, label=self.label)
