"""Paths that draw points and lines."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


def dots(flat: Floats) -> str:
    """A path with a dot at each of the points (n, 2)."""
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in flat.tolist())


def lines(flat: Floats, pairs: npt.NDArray[np.integer[Any]]) -> str:
    """A path with a line for each of `pairs` (n, 2), numbers of points (m, 2)."""
    rounded = np.round(flat, 1)
    return "".join(f"M{a:g} {b:g}L{c:g} {d:g}" for (a, b), (c, d) in rounded[pairs].tolist())
