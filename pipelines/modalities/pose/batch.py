"""Batches of pose sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.stream.batch import Batch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseBatch(Batch):
    """A batch of sequences of T poses with J joints, each seen by a separate camera: float32 (B, T, J, 3) and (B, T, J,
    2).

    `mask_2d` and `mask_3d` are on the (frame, joint) grid, drawn separately; None if the loader has no mask.

    Attributes:
        pose_3d: float32 (B, T, J, 3): metres in camera axes (x to the right, y downwards, z away from the camera),
            relative to the pelvis (joint 0) in every frame.
        pose_2d: float32 (B, T, J, 2): projection of the poses, in half image widths from the image centre, x to the
            right, y downwards: focal * (x, y) / z of pose_3d + root.
        root: float32 (B, T, 3): pelvis in camera coordinates, in metres.
        focal: float32 (B,): focal length in half image widths.
        mask_2d: Masks of the 2-D poses.
        mask_3d: Masks of the 3-D poses.
    """

    pose_3d: Tensor
    pose_2d: Tensor
    root: Tensor
    focal: Tensor
    mask_2d: MaskBatch | None
    mask_3d: MaskBatch | None
