"""The crop of decoded frames as YUV planes, neither resized nor converted, for a device that does both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame

from maskstream.pipelines.augment.crop import Crop

from .cpu import PLANAR_420, UInt8Array, colours_of, planes_of


@dataclass(frozen=True, kw_only=True, slots=True)
class CropPlanes:
    """The crop of T frames in 4:2:0.

    luma: uint8 (T, h, w). chroma: uint8 (T, 2, ceil(h / 2), ceil(w / 2)), U and V. flip: whether the output is flipped.
    standard, full_range: the colours, "bt601" or "bt709".
    """

    luma: UInt8Array
    chroma: UInt8Array
    flip: bool
    standard: str
    full_range: bool


def plane_memory(of: tuple[int, ...], height: int, width: int) -> tuple[UInt8Array, UInt8Array]:
    """Memory for frames whose luma is (height, width): luma uint8 (*of, H, W), chroma (*of, 2, H / 2, W / 2)."""
    luma = np.empty((*of, height, width), dtype=np.uint8)
    return luma, np.empty((*of, 2, -(-height // 2), -(-width // 2)), dtype=np.uint8)


def crop_planes(frames: list[VideoFrame], crop: Crop, into: tuple[UInt8Array, UInt8Array] | None = None) -> CropPlanes:
    """The crop of the frames; `crop` is in pixels of the frames, with even offsets and sizes. into: memory for luma and
    chroma, by default new.
    """
    luma, chroma = into or plane_memory((len(frames),), crop.height, crop.width)
    done: dict[int, int] = {}
    for t, frame in enumerate(frames):
        if (before := done.setdefault(id(frame), t)) != t:
            luma[t], chroma[t] = luma[before], chroma[before]
            continue
        planar = frame if frame.format.name in PLANAR_420 else frame.reformat(format="yuv420p")
        luma[t], chroma[t, 0], chroma[t, 1] = planes_of(planar, crop)
    standard, full_range = colours_of(frames[0])
    return CropPlanes(luma=luma, chroma=chroma, flip=crop.flip, standard=standard, full_range=full_range)
