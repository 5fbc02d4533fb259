"""What is done with videos of which a part is damaged or cut off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from av.video.frame import VideoFrame

from maskstream.preprocess.source import DamageError

Damage = Literal["reject", "trim", "keep"]
"""reject: such a video is a reject. trim: it ends before its first damaged frame. keep: frames are as the decoder
conceals damage, and those that it cannot make are missing."""
DAMAGES = get_args(Damage)


@dataclass(slots=True)
class Ending:
    """How the frames of one video end."""

    damage: Damage
    least_whole: float
    n_frames: int = 0
    found: DamageError | None = field(default=None)

    def of(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """The frames; with "trim", those before the first damaged one."""
        try:
            for frame in frames:
                self.n_frames += 1
                yield frame
        except DamageError as error:
            if self.damage != "trim":
                raise
            self.found = error

    def facts(self, n_expected: int) -> dict[str, Any]:
        """What `json` says of a video that should have so many frames: {} if it has them.

        Raises the error that was found if less than the share `least_whole` of them is there.
        """
        if self.damage == "reject" or (self.found is None and self.n_frames >= n_expected):
            return {}
        if self.n_frames < self.least_whole * n_expected or not self.n_frames:
            raise self.found or DamageError(
                "decode", f"is truncated or damaged: {self.n_frames} of {n_expected} frames can be read"
            )
        return {"damage": {"n_frames": self.n_frames, "of": max(n_expected, self.n_frames)}}
