"""A host batch of clips as YUV planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...decode.cpu import UInt8Array, yuv_to_rgb
from ...decode.planes import CropPlanes, PlaneMemory
from ...stream.batch import Movable


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaneClip:
    """The height and width of a clip's luma and of its chroma, whether it is flipped, and whether its chroma is resized
    to half the output: in colours of BT.601 with limited range, as OpenCV converts them.
    """

    luma: tuple[int, int]
    chroma: tuple[int, int]
    flip: bool
    half: bool

    @classmethod
    def of(cls, clip: CropPlanes) -> PlaneClip:
        """The facts of a clip."""
        luma, chroma = clip.luma.shape, clip.chroma.shape
        half = clip.standard == "bt601" and not clip.full_range
        return cls(luma=(luma[1], luma[2]), chroma=(chroma[2], chroma[3]), flip=clip.flip, half=half)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaneBatch(Movable):
    """The crops of B clips, padded to the largest.

    luma: uint8 (B, T, H, W). chroma: uint8 (B, T, 2, ceil(H / 2), ceil(W / 2)). clips: one each, on the host. colours:
    float32 (B, 3, 4), from (Y, U, V, 1) to RGB.
    """

    luma: Tensor
    chroma: Tensor
    clips: tuple[PlaneClip, ...]
    colours: Tensor

    @classmethod
    def of(cls, clips: Sequence[CropPlanes], memory: PlaneMemory | None = None) -> PlaneBatch:
        """The batch of some clips of equal length; memory: that in which they are, if they are in one."""
        luma, chroma = (memory.whole(clips) if memory else None) or _joined(clips)
        colours = np.stack([yuv_to_rgb(c.standard, c.full_range) for c in clips])
        return cls(
            luma=torch.from_numpy(luma),
            chroma=torch.from_numpy(chroma),
            clips=tuple(map(PlaneClip.of, clips)),
            colours=torch.from_numpy(colours.astype(np.float32)),
        )


def _joined(clips: Sequence[CropPlanes]) -> tuple[UInt8Array, UInt8Array]:
    """Luma (B, T, H, W) and chroma (B, T, 2, ceil(H / 2), ceil(W / 2)) of clips, copied."""
    frames = len(clips[0].luma)
    height, width = (max(clip.luma.shape[axis] for clip in clips) for axis in (1, 2))
    luma = np.empty((len(clips), frames, height, width), dtype=np.uint8)
    chroma = np.empty((len(clips), frames, 2, -(-height // 2), -(-width // 2)), dtype=np.uint8)
    for clip, y, uv in zip(clips, luma, chroma, strict=True):
        y[:, : clip.luma.shape[1], : clip.luma.shape[2]] = clip.luma
        uv[..., : clip.chroma.shape[2], : clip.chroma.shape[3]] = clip.chroma
    return luma, chroma
