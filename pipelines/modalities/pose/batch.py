"""A batch of clips of poses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.stream.batch import Batch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseBatch(Batch):
    """A batch of clips of T poses of J joints, each seen by a camera of its own.

    pose_3d: float32 (B, T, J, 3), metres in the axes of the camera (x to the right, y downwards, z away from it), with
    the pelvis, joint 0, at the origin of every frame. root: float32 (B, T, 3), the pelvis in the camera's coordinates,
    metres. pose_2d: float32 (B, T, J, 2), their image in half widths of the picture from its middle, x to the right, y
    downwards: focal * (x, y) / z of pose_3d + root. focal: float32 (B,), in half widths.

    mask_2d, mask_3d: MaskBatch over the (frame, joint) grid, drawn apart for either pose; None if the loader has none.
    """

    pose_3d: Tensor
    pose_2d: Tensor
    root: Tensor
    focal: Tensor
    mask_2d: MaskBatch | None
    mask_3d: MaskBatch | None
