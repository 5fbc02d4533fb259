"""The config of a clip: its frames, their stride and their size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ....shards.config import Config
from ...flow.codec import ANCHOR_STRIDE


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoClip(Config):
    """A clip of `frames` frames, `stride` frames apart, of `size` x `size` pixels.

    start: "random" draws the first frame uniformly, "center" centres the clip in the video. align: the number of the
    first frame is a multiple of it. None means 4 on shards of the `train` profile if the stride is a multiple of 4 (no
    B-frame is then decoded, and at stride 4 motion vectors are optical flow), else 1.

    If the video is too short for the clip, the clip repeats its last frame at the stride, as in VideoMAE.
    """

    frames: int = 16
    stride: int = 4
    size: int = 224
    start: Literal["random", "center"] = "random"
    align: int | None = None

    def __post_init__(self) -> None:
        for name in ("frames", "stride", "size"):
            if getattr(self, name) < 1:
                raise ValueError(f"VideoClip({name}={getattr(self, name)}): it must be at least 1")
        if self.align is not None and self.align < 1:
            raise ValueError(f"VideoClip(align={self.align}): it must be at least 1, or None")
        if self.start not in ("random", "center"):
            raise ValueError(f"VideoClip(start={self.start!r}): legal are 'random' and 'center'")

    @property
    def span(self) -> int:
        """The number of video frames from the first to the last frame of the clip, both included."""
        return (self.frames - 1) * self.stride + 1

    def numbers(self, n_frames: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draws the clip's frame numbers, int64 (frames,), non-decreasing, in a video of `n_frames` frames."""
        align = self.align or 1
        last_start = max(n_frames - self.span, 0) // align
        start = (int(rng.integers(last_start + 1)) if self.start == "random" else last_start // 2) * align
        reachable = start + (n_frames - 1 - start) // self.stride * self.stride
        return np.minimum(start + np.arange(self.frames, dtype=np.int64) * self.stride, reachable)


def aligned(clip: VideoClip, profile: str) -> VideoClip:
    """The clip with `align=None` replaced by its value for shards of `profile`."""
    if clip.align is not None:
        return clip
    anchored = profile == "train" and clip.stride % ANCHOR_STRIDE == 0
    return replace(clip, align=ANCHOR_STRIDE if anchored else 1)
