"""A batch of clips of walks."""

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
    """A batch of B clips of T frames. The last frame of a clip is now.

    video: uint8 (B, T, H, W, 3), RGB. depth: float32 (B, T, H, W), metres along the camera's axis, 0 where unknown, of
    the same frames and crops; None if the loader reads none. mask: over the (t, h, w) token grid, of colours and depth
    alike; None where the loader was built without one. pts_s: float64 (B, T), each frame's time in seconds from the
    start of its walk. pose: float32 (B, T, 7), the camera in each frame on the axes of the camera now: place in metres
    (x to the right, y downwards, z forward), then the unit quaternion w, x, y, z with w >= 0. waypoint: float32
    (B, 3), where the walk is `ahead_s` later: metres to the right, metres forward, the turn to the right in radians,
    along the ground. lens: float32 (B, 4), focal lengths and centre (fx, fy, cx, cy) in pixels of `video`. A mirrored
    clip has mirrored poses and waypoints. The rest is as in `Batch`.
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
        """The clips alone."""
        return VideoBatch(video=self.video, mask=self.mask, flow=None, pts_s=self.pts_s, key=self.key, label=self.label)
