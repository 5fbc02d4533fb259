"""The crop of decoded frames as YUV planes, neither resized nor converted, for a device that does both."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame

from ..augment.crop import Crop
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


class PlaneMemory:
    """The planes of a batch of clips, into which each clip is written, so that joining copies nothing.

    Its sides are those of the largest crops that were announced before the first clip was written. A crop that was not,
    because it replaces a sample, may be larger; it then has memory of its own.
    """

    def __init__(self, clips: int, frames: int) -> None:
        self._clips, self._frames = clips, frames
        self._height = self._width = 0
        self._made: tuple[UInt8Array, UInt8Array] | None = None
        self._lock = threading.Lock()

    def announce(self, crops: Sequence[Crop]) -> None:
        """Says that these crops will be written."""
        self._height = max(self._height, *(crop.height for crop in crops))
        self._width = max(self._width, *(crop.width for crop in crops))

    def of(self, clip: int, crop: Crop) -> tuple[UInt8Array, UInt8Array]:
        """Where the luma (T, h, w) and the chroma (T, 2, ceil(h / 2), ceil(w / 2)) of a clip are written."""
        rows, columns = -(-crop.height // 2), -(-crop.width // 2)
        with self._lock:
            if self._made is None:
                self._made = _planes((self._clips, self._frames), self._height, self._width)
        luma, chroma = self._made
        if crop.height > luma.shape[2] or crop.width > luma.shape[3]:
            return _planes((self._frames,), crop.height, crop.width)
        return luma[clip, :, : crop.height, : crop.width], chroma[clip, :, :, :rows, :columns]

    def whole(self, clips: Sequence[CropPlanes]) -> tuple[UInt8Array, UInt8Array] | None:
        """Luma (B, T, H, W) and chroma of the batch; None unless all its clips were written here."""
        if self._made is None or len(clips) != self._clips:
            return None
        here = all(clip.luma.base is self._made[0] and clip.chroma.base is self._made[1] for clip in clips)
        return self._made if here else None


def _planes(of: tuple[int, ...], height: int, width: int) -> tuple[UInt8Array, UInt8Array]:
    """Memory for luma and chroma of so many frames."""
    luma = np.empty((*of, height, width), dtype=np.uint8)
    return luma, np.empty((*of, 2, -(-height // 2), -(-width // 2)), dtype=np.uint8)


def crop_planes(frames: list[VideoFrame], crop: Crop, into: tuple[UInt8Array, UInt8Array] | None = None) -> CropPlanes:
    """The crop of the frames; `crop` is in pixels of the frames, with even offsets and sizes. into: memory for luma and
    chroma, by default new.
    """
    luma, chroma = into or _planes((len(frames),), crop.height, crop.width)
    done: dict[int, int] = {}
    for t, frame in enumerate(frames):
        if (before := done.setdefault(id(frame), t)) != t:
            luma[t], chroma[t] = luma[before], chroma[before]
            continue
        planar = frame if frame.format.name in PLANAR_420 else frame.reformat(format="yuv420p")
        luma[t], chroma[t, 0], chroma[t, 1] = planes_of(planar, crop)
    standard, full_range = colours_of(frames[0])
    return CropPlanes(luma=luma, chroma=chroma, flip=crop.flip, standard=standard, full_range=full_range)
