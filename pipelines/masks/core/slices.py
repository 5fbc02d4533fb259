"""Slices of a grid across one axis, such as the frames of a clip or the columns of a spectrogram."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .draw import TokenGrid


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


def random_orders(rows: int, n: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """`rows` random orders of 0 ... n-1, one in each row: int64 (rows, n).

    Random keys that hold the number in their lowest bits are sorted, which is several times faster than shuffling row
    by row. At least 22 bits of a key are random; between equal ones the lower number goes first.
    """
    kind: Any = np.uint64 if n > 1024 else np.uint32
    bits = 64 if n > 1024 else 32
    low = (1 << max(n - 1, 1).bit_length()) - 1
    keys: npt.NDArray[Any] = rng.integers((1 << bits) - 1, dtype=kind, size=(rows, n), endpoint=True)
    keys &= kind((1 << bits) - 1 - low)
    keys |= np.arange(n, dtype=kind)
    keys.sort(axis=1)
    orders: npt.NDArray[np.int64] = (keys & kind(low)).astype(np.int64)
    return orders
