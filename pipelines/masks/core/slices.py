"""Slices of a grid across one axis, such as the frames of a clip or the columns of a spectrogram."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .grid import TokenGrid


def repeated(plane: npt.NDArray[np.bool_], grid: TokenGrid, axis: str) -> npt.NDArray[np.bool_]:
    """One map of a slice, bool (size of a slice,), repeated in every slice across `axis`: bool (N,)."""
    return in_slices(np.broadcast_to(plane, (grid.shape[grid.axes.index(axis)], len(plane))), grid, axis)


def in_slices(maps: npt.NDArray[np.bool_], grid: TokenGrid, axis: str) -> npt.NDArray[np.bool_]:
    """The maps of all slices across `axis`, bool (slices, size of a slice or 1), as a map of the grid: bool (N,)."""
    place = grid.axes.index(axis)
    if maps.shape[1] == 1:
        maps = np.broadcast_to(maps, (len(maps), grid.size // len(maps)))
    if place == 0:
        return maps.reshape(-1)
    return np.moveaxis(maps.reshape(len(maps), *grid.shape[:place], *grid.shape[place + 1 :]), 0, place).reshape(-1)
