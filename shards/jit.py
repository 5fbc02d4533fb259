"""Kernels: small loops compiled with numba, for computations that would need many numpy calls on small arrays.

Importing numba takes 0.15 s, so only kernel files import this module, and callers import these files inside functions.
A module whose classes are sent to workers lists its kernel files in `KERNELS`, for the server that forks them.

A kernel is compiled at its first call (about 10 s for all of flow and masks) and cached next to its file, or in the
user's cache folder if that is not writable; other processes load it from there in a few milliseconds. If neither is
writable, each process compiles its own. NUMBA_CACHE_DIR sets another folder. The cache contains code, so it is read
only from `__pycache__`, whose files Python runs too, and from a folder that no other user can write to.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from importlib import import_module
from inspect import getfile, signature
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from maskstream.shards.lazy import importing
from maskstream.shards.own_folder import make_own_folder

with importing():
    import numba
    from llvmlite import ir
    from llvmlite.binding import add_symbol
    from numba import types
    from numba.core import entrypoints, environment, event
    from numba.core.caching import FunctionCache, IndexDataCacheFile
    from numba.core.registry import cpu_target
    from numba.extending import intrinsic

    # The first call of a kernel needs these too; processes forked from this one then have them.
    import_module("numpy.ma")
    entrypoints.init_all()  # type: ignore[no-untyped-call]
    _ = cpu_target.target_context

# Functions that the memory management in compiled kernels calls. numba registers their addresses when it compiles this
# management, which takes a tenth of numba's import time and touches a third of LLVM; loaded kernels already contain it.
for _name, _of in import_module("numba.core.runtime._nrt_python").c_helpers.items():
    add_symbol(_name if _name.startswith("_") else f"NRT_{_name}", _of)

P = ParamSpec("P")
R = TypeVar("R")

_CONSTANTS = (int, float, tuple)
_ONLY = "kernel"


class _Environment:
    """Return the Python environment of a function that a kernel calls, as it is cached: only constants, since kernels
    run without Python. With numba's own environment, a process that loads the cache would import the modules of all
    functions.
    """

    def __init__(self, of: Any) -> None:
        self._of = of

    def __reduce__(self) -> tuple[object, ...]:
        return _environment, (self._of.globals["__name__"], self._of.consts, self._of.env_name)


def _environment(module: str, constants: list[object], name: str) -> object:
    of: Any = environment
    if module in sys.modules or of.lookup_environment(name) is not None:
        return of._rebuild_env(module, constants, name)
    made = of.Environment({"__name__": module})
    made.consts[:], made.env_name = constants, name
    of.Environment._memo[name] = made
    return made


class _Cache(FunctionCache):
    """Compiled code of a kernel on disk, in a separate file for each source text, signature and processor.

    numba's cache compares modification times of the source, which packages may set, and processes that compile a kernel
    for different signatures at the same time may write to the same file.
    """

    def __init__(self, function: Any) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        texts = [Path(file).read_bytes() for file in (getfile(function), __file__)]
        constants = [(name, value) for name, value in function.__globals__.items() if isinstance(value, _CONSTANTS)]
        folder = Path(super().cache_path)
        self._folder = folder if folder.name == "__pycache__" else make_own_folder(folder)
        self._source = sha256(
            repr((texts, sorted(constants))).encode()
        ).hexdigest()  # constants may come from other modules

    @property
    def cache_path(self) -> str:
        """Folder of the files."""
        return str(self._folder)

    def load_overload(self, sig: Sequence[object], target_context: Any) -> Any:
        """Return the compiled code for a signature; None if there is none, or its file is damaged.

        numba's own method imports the whole compiler first, which takes 0.4 s.
        """
        with suppress(Exception):
            data = self._file(sig, target_context.codegen()).load(_ONLY)
            return data and self._impl.rebuild(target_context, data)

    def save_overload(self, sig: Sequence[object], data: Any) -> None:
        """Save compiled code, unless the disk is full."""
        if self._impl.check_cachable(data):
            with suppress(OSError):
                file = self._file(sig, data.codegen)
                file.flush()  # it may be damaged
                *kept, called = self._impl.reduce(data)
                file.save(_ONLY, (*kept, tuple(map(_Environment, called))))

    def _file(self, sig: Sequence[object], codegen: Any) -> Any:
        key = sha256(repr((tuple(sig), codegen.magic_tuple(), self._source)).encode()).hexdigest()[:16]
        files: Any = IndexDataCacheFile
        return files(self.cache_path, f"{self._impl.filename_base}-{key}", key)


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function`. The kernel releases the GIL, and follows IEEE 754 without contraction on every machine.

    A kernel does not check bounds. It may call only kernels of the same file, since it is recompiled only when that
    file, or a global number or tuple in it, changes.
    """
    made: Any = numba.njit(nogil=True, error_model="numpy")(function)
    with suppress(RuntimeError, OSError):  # no folder for the cache is writable, or there is no source
        made._cache = _Cache(function)
    return made  # type: ignore[no-any-return]


class _Watch(event.Listener):
    """Called with 1 when a compilation begins, and -1 when it ends."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell

    def on_start(self, _: object) -> None:
        self._tell(1)

    def on_end(self, _: object) -> None:
        self._tell(-1)


def watch(tell: Callable[[int], None]) -> None:
    """Call `tell` with 1 when the compilation of a kernel begins in this process, and with -1 when it is done."""
    event.register("numba:compile", _Watch(tell))  # type: ignore[no-untyped-call]


def instructions(result: types.Type) -> Callable[[Callable[..., ir.Value | None]], Callable[..., int]]:
    """Create a function that kernels can call with integers, from the LLVM instructions that the decorated function
    builds.

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


def vector(bits: int, lanes: int) -> ir.VectorType:
    """Return the type of a vector of integers."""
    return ir.VectorType(ir.IntType(bits), lanes)


def filled(of: ir.VectorType, value: int) -> ir.Constant:
    """Return a vector with one value in all lanes."""
    return ir.Constant(of, [value] * of.count)


def undefined(of: ir.VectorType) -> ir.Constant:
    """Return a vector of any values."""
    return ir.Constant(of, ir.Undefined)


def picked(b: ir.IRBuilder, one: ir.Value, other: ir.Value, lanes: Sequence[int]) -> ir.Value:
    """Select lanes of two vectors by number; the lanes of `other` are numbered after the lanes of `one`."""
    return b.shuffle_vector(one, other, ir.Constant(vector(32, len(lanes)), list(lanes)))


def load(b: ir.IRBuilder, address: ir.Value, of: ir.Type) -> ir.Value:
    """Load a value of a type from an address with any alignment."""
    loaded = b.load(b.inttoptr(address, of.as_pointer()))
    loaded.align = 1
    return loaded


def store(b: ir.IRBuilder, value: ir.Value, address: ir.Value) -> None:
    """Store a value at an address with any alignment."""
    b.store(value, b.inttoptr(address, value.type.as_pointer())).align = 1
