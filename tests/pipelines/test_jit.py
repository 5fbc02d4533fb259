"""Kernels: without a place for their cache they are compiled all the same."""

from typing import Any

import numba
import numpy as np
import pytest

from maskstream.pipelines import jit


def test_without_a_place_for_the_cache_a_kernel_is_compiled_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    njit, asked = numba.njit, []

    def no_locator(*args: Any, cache: bool = False, **options: Any) -> Any:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*args, **options)

    monkeypatch.setattr(numba, "njit", no_locator)

    @jit.kernel
    def total(values: np.ndarray) -> float:
        result = 0.0
        for value in values:
            result += value
        return result

    assert total(np.arange(5.0)) == 10.0
    assert asked[:2] == [True, False]  # numba compiles parts of itself with it too
