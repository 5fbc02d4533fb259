"""Small loops over a clip's few numbers, compiled with numba: numpy needs a call for each step of them.

Importing numba takes half a second, so only files of kernels import this one, and whoever calls a kernel imports its
file within the function that does. A kernel is compiled at its first call (all of flow and masks in some 10 s) and kept
on disk beside its file, or under the user's cache folder where that cannot be written; other processes load it from
there in half a second. Where neither can be written each process compiles for itself. NUMBA_CACHE_DIR names another
place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, compiled; other threads run beside it. Floats are IEEE's, without contraction, on every machine.

    A kernel checks no bounds, and calls only kernels of its own file: numba compiles it anew when its file changes.
    """
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no place for the cache
        return numba.njit(nogil=True, error_model="numpy")(function)
