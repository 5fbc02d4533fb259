"""Shapes: which values of a sample a mask hides together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A partition of a sample's D values: `parts` int64 (D,), the number of each value's part."""

    name: str
    parts: npt.NDArray[np.int64]

    @property
    def count(self) -> int:
        """The number of parts."""
        return int(self.parts.max()) + 1

    def __post_init__(self) -> None:
        if not np.array_equal(np.unique(self.parts), np.arange(self.parts.max(initial=0) + 1)):
            raise ValueError(f"the parts of shape {self.name} are numbered 0, 1, 2, ..., got {np.unique(self.parts)}")


def shape_of(name: str, side: int, channels: int = 3) -> Shape:
    """The shape `name` of pictures (side, side, channels): "4" is squares of 4 x 4 pixels, "rows" and "columns" lines.

    All channels of a pixel belong to one part. ValueError where squares do not tile the picture.
    """
    y, x = np.divmod(np.arange(side * side), side)
    if name in ("rows", "columns"):
        pixels = y if name == "rows" else x
    else:
        k = int(name) if name.isdecimal() else 0
        if k < 1 or side % k or k == side:
            legal = [str(d) for d in range(1, side) if side % d == 0]
            raise ValueError(
                f"a shape of a {side} x {side} picture is one of {', '.join(legal)}, rows, columns: {name!r}"
            )
        pixels = y // k * (side // k) + x // k
    return Shape(name=name if not name.isdecimal() else f"{name} x {name}", parts=pixels.repeat(channels))


def shapes_of(side: int, names: Sequence[str] | None = None, channels: int = 3) -> tuple[Shape, ...]:
    """The shapes `names`; by default squares of 1, 2, 4, ... pixels up to half the picture, rows and columns."""
    if names is None:
        names = [*(str(k) for k in (1, 2, 4, 8, 16) if k < side and side % k == 0), "rows", "columns"]
    return tuple(shape_of(name, side, channels) for name in names)
