"""Kernels: small loops compiled with numba, for computations that would need many numpy calls on small arrays.

Importing numba takes half a second, so only files of kernels import this module, and callers import these files inside
functions. A kernel is compiled at its first call (about 10 s for all of flow and masks) and cached beside its file, or
in the user's cache folder if that is not writable; other processes load it from there in half a second. If neither is
writable, each process compiles for itself. NUMBA_CACHE_DIR sets another folder.
"""

from collections.abc import Callable
from inspect import signature
from typing import ParamSpec, TypeVar

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """The compiled `function`. It releases the GIL, and follows IEEE 754 without contraction on every machine.

    A kernel does not check bounds. It may call only kernels of its own file, since numba recompiles it only when that
    file changes.
    """
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no folder for the cache is writable
        return numba.njit(nogil=True, error_model="numpy")(function)


def instructions(result: types.Type) -> Callable[[Callable[..., ir.Value | None]], Callable[..., int]]:
    """Makes a function that kernels call with integers of the LLVM instructions that the decorated one builds.

    The decorated function takes an `ir.IRBuilder` and the integers as `ir.Value`, and returns the value of the numba
    type `result`, or None if that is `types.void`.
    """

    def decorate(build: Callable[..., ir.Value | None]) -> Callable[..., int]:
        def typed(_: object, *arguments: types.Type) -> object:
            def generate(context: ir.Context, builder: ir.IRBuilder, _: object, values: list[ir.Value]) -> object:
                made = build(builder, *values)
                return context.get_dummy_value() if made is None else made

            return result(*[types.intp] * len(arguments)), generate

        typed.__signature__ = signature(build)  # type: ignore[attr-defined]  # numba reads it: one parameter each
        made: Callable[..., int] = intrinsic(typed)
        return made

    return decorate
