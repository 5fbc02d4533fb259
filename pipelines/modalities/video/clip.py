"""The config of a clip: its frames, their stride and their size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ....shards.anchors import ANCHOR_STRIDE, ANCHORED
from ....shards.config import Config


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoClip(Config):
    """A clip of `frames` frames, `stride` frames apart, of `size` x `size` pixels.

    start: "random" draws the first frame uniformly, "center" centres the clip in the video. align: the number of the
    first frame is a multiple of it; with "gop" it is the first of a GOP, so that no frame before the clip is read and
    decoded, but a video has far fewer clips. None means 4 on shards of the profiles `train` and `fast` if the stride is
    a multiple of 4 (no B-frame is then decoded, and at stride 4 motion vectors are optical flow), else 1.

    If the video is too short for the clip, the clip repeats its last frame at the stride, as in VideoMAE.
    """

    frames: int = 16
    stride: int = 4
    size: int = 224
    start: Literal["random", "center"] = "random"
    align: int | Literal["gop"] | None = None

    def __post_init__(self) -> None:
        for name in ("frames", "stride", "size"):
            if getattr(self, name) < 1:
                raise ValueError(f"VideoClip({name}={getattr(self, name)}): it must be at least 1")
        if not (self.align in (None, "gop") or (isinstance(self.align, int) and self.align >= 1)):
            raise ValueError(f"VideoClip(align={self.align!r}): it must be at least 1, 'gop' or None")
        if self.start not in ("random", "center"):
            raise ValueError(f"VideoClip(start={self.start!r}): legal are 'random' and 'center'")

    @property
    def span(self) -> int:
        """The number of video frames from the first to the last frame of the clip, both included."""
        return (self.frames - 1) * self.stride + 1

    def numbers(
        self, n_frames: int, rng: np.random.Generator, gops: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.int64]:
        """Draws the clip's frame numbers, int64 (frames,), non-decreasing, in a video of `n_frames` frames.

        gops: int64 (GOPs,), the first frame of each GOP, ascending from 0; only align="gop" needs it.
        """
        latest = max(n_frames - self.span, 0)
        if self.align == "gop":
            if gops is None:
                raise ValueError("VideoClip(align='gop') needs the first frames of the GOPs, got none; give gops=")
            starts: Sequence[int] = gops[gops <= latest].tolist()
        else:
            starts = range(0, latest + 1, self.align or 1)
        start = starts[int(rng.integers(len(starts))) if self.start == "random" else (len(starts) - 1) // 2]
        reachable = start + (n_frames - 1 - start) // self.stride * self.stride
        return np.minimum(start + np.arange(self.frames, dtype=np.int64) * self.stride, reachable)


def start_multiple(clip: VideoClip, profile: str) -> int:
    """What the numbers of a clip's first frame are multiples of, in shards of `profile`."""
    if clip.align == "gop":
        return ANCHOR_STRIDE if profile in ANCHORED else 1
    return clip.align or 1


def aligned(clip: VideoClip, profile: str) -> VideoClip:
    """The clip with `align=None` replaced by its value for shards of `profile`."""
    if clip.align is not None:
        return clip
    anchored = profile in ANCHORED and clip.stride % ANCHOR_STRIDE == 0
    return replace(clip, align=ANCHOR_STRIDE if anchored else 1)
