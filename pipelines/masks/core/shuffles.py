"""Many random orders at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


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
