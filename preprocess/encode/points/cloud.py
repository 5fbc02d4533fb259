"""A point cloud as read from a file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class Cloud:
    """points: float64 (N, columns), x, y, z first. columns: their names. n_dropped: how many noise points were removed.

    Float32 would lose the centimetres of survey coordinates, which are millions of metres; the encoder moves the origin
    first.
    """

    points: npt.NDArray[np.float64]
    columns: tuple[str, ...]
    n_dropped: int = 0
