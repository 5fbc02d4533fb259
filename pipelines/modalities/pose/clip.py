"""The config of a clip of poses: its frames and their stride."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
