"""The token grid of a mask: named axes, the number of tokens along each, and the extent of one token."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Self

from maskstream.shards.config import Config


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenGrid(Config):
    """Named axes (such as t, h, w), the number of tokens along each, and the extent of one token in the data's units.

    Tokens are numbered in C order of `shape`; `patch` is (frames, pixels, pixels) for video. The default is VideoMAE's:
    16 frames at 224 pixels in cubes of 2 x 16 x 16, 1568 tokens.
    """

    axes: tuple[str, ...] = ("t", "h", "w")
    shape: tuple[int, ...] = (8, 14, 14)
    patch: tuple[int, ...] = (2, 16, 16)

    def __post_init__(self) -> None:
        if not len(self.axes) == len(self.shape) == len(self.patch) > 0:
            raise ValueError(
                f"a grid needs one length and one patch extent per axis, got axes={self.axes}, shape={self.shape}, "
                f"patch={self.patch}"
            )
        if len(set(self.axes)) < len(self.axes):
            raise ValueError(f"the axes of a grid have different names, got {self.axes}")
        if min(self.shape) < 1 or min(self.patch) < 1:
            raise ValueError(f"lengths and patch extents are at least 1, got shape={self.shape}, patch={self.patch}")

    @property
    def size(self) -> int:
        """The number of tokens."""
        return prod(self.shape)

    def need(self, *axes: str, by: str) -> tuple[int, ...]:
        """The grid's shape, for the pattern `by`; ValueError where its axes are not these."""
        if self.axes != axes:
            raise ValueError(f"{by} needs a grid with the axes {axes}, got {self.axes}")
        return self.shape

    def need_axis(self, axis: str, by: str) -> int:
        """The place of `axis` among the axes, for the pattern `by`; ValueError where it is not there."""
        if axis not in self.axes:
            raise ValueError(f"{by} needs a grid with an axis {axis!r}, got {self.axes}")
        return self.axes.index(axis)

    def across(self, axis: str, by: str) -> int:
        """The number of tokens of one slice across `axis`, for the pattern `by`; ValueError where it is not there."""
        return self.size // self.shape[self.need_axis(axis, by)]

    @classmethod
    def video(cls, frames: int, height: int, width: int, tubelet: int = 2, patch: int = 16) -> Self:
        """The (t, h, w) grid of a clip of `frames` x `height` x `width` pixels in cubes tubelet x patch x patch."""
        if tubelet < 1 or patch < 1:
            raise ValueError(f"tubelet and patch are at least 1, got tubelet={tubelet}, patch={patch}")
        for name, length, step in (("frames", frames, tubelet), ("height", height, patch), ("width", width, patch)):
            if length < 1 or length % step:
                below = max(length // step, 1) * step
                raise ValueError(
                    f"{name}={length} is not a positive multiple of {step}; {below} and {below + step} are"
                )
        return cls(
            axes=("t", "h", "w"),
            shape=(frames // tubelet, height // patch, width // patch),
            patch=(tubelet, patch, patch),
        )
