"""Arrays in shared memory, which worker processes read without a copy.

The memory is an anonymous file (memfd), whose descriptor a process inherits. So /dev/shm is not used, and the memory is
freed when the last process ends, even if it is killed.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_ALIGNMENT = 64


def can_share() -> bool:
    """Whether the current pickling is for a process that is being started, on a system with memfd."""
    return get_spawning_popen() is not None and hasattr(os, "memfd_create")


class Shared:
    """A tree of dicts and dataclasses whose arrays are in shared memory, so its pickle is small.

    NumPy arrays (in C order) and Arrow string arrays without nulls are moved; other leaves are kept.
    """

    def __init__(self, tree: Any) -> None:
        self._descriptor = os.memfd_create("maskstream", os.MFD_CLOEXEC)
        self._size = 0
        self._put_before: dict[int, _Numbers] = {}
        self._tree = _walked(tree, self._put)
        os.ftruncate(self._descriptor, max(self._size, 1))

    def tree(self) -> Any:
        """The tree with read-only arrays in the shared memory."""
        return _mapped(self._descriptor, self._tree)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Unpickling in the new process gives the tree itself."""
        return _received, (DupFd(self._descriptor), self._tree)

    def __del__(self) -> None:
        os.close(self._descriptor)

    def _put(self, leaf: Any) -> Any:
        if isinstance(leaf, pa.StringArray) and leaf.null_count == 0:
            whole = pa.concat_arrays([leaf]) if leaf.offset else leaf
            _, offsets, text = whole.buffers()
            return _Strings(len(whole), self._write(_bytes_of(offsets)), self._write(_bytes_of(text)))
        if not isinstance(leaf, np.ndarray):
            return leaf
        if id(leaf) not in self._put_before:  # an array that occurs twice is written once
            self._put_before[id(leaf)] = self._write(leaf)
        return self._put_before[id(leaf)]

    def _write(self, array: npt.NDArray[Any]) -> _Numbers:
        begin = -(-self._size // _ALIGNMENT) * _ALIGNMENT
        rest = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        self._size = begin + len(rest)
        at = begin
        while rest:
            written = os.pwrite(self._descriptor, rest, at)
            rest, at = rest[written:], at + written
        return _Numbers(begin, array.dtype.str, array.shape)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """The position of an array in the memory."""

    begin: int
    dtype: str
    shape: tuple[int, ...]

    def at(self, memory: memoryview) -> npt.NDArray[Any]:
        count = int(np.prod(self.shape))
        dtype = np.dtype(self.dtype)
        return np.frombuffer(memory[self.begin : self.begin + count * dtype.itemsize], dtype).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class _Strings:
    """The positions of the two buffers of a string array."""

    length: int
    offsets: _Numbers
    text: _Numbers

    def at(self, memory: memoryview) -> pa.StringArray:
        buffers = [None, *(pa.py_buffer(part.at(memory)) for part in (self.offsets, self.text))]
        return pa.Array.from_buffers(pa.string(), self.length, buffers)


def _bytes_of(buffer: pa.Buffer | None) -> npt.NDArray[np.uint8]:
    return np.frombuffer(buffer or b"", np.uint8)


def _received(descriptor: Any, tree: Any) -> Any:
    own = descriptor.detach()
    try:
        return _mapped(own, tree)
    finally:
        os.close(own)


def _mapped(descriptor: int, tree: Any) -> Any:
    memory = memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
    return _walked(tree, lambda leaf: leaf.at(memory) if isinstance(leaf, _Numbers | _Strings) else leaf)


def _walked(value: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of the tree with `change` applied to each leaf."""
    if isinstance(value, dict):
        return {key: _walked(entry, change) for key, entry in value.items()}
    if is_dataclass(value) and not isinstance(value, type | _Numbers | _Strings):
        return replace(value, **{f.name: _walked(getattr(value, f.name), change) for f in fields(value)})
    return change(value)
