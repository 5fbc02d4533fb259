"""Memory of batches that is kept: a new batch gets that of one that is gone.

Fresh memory costs as much as filling it, because the system clears each page when it is first written.
"""

import math
import weakref
from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

LARGE = 1 << 20
"""Arrays of at least so many bytes lie in kept memory; smaller ones are the allocator's, which keeps theirs."""
_SLACK = 1.25
"""An array may get memory of up to so many times its size."""
_AGE = 64
"""Memory that is idle while so many arrays are made is freed."""


class Slot:
    """A piece of memory. idle_since: how many arrays had been made when it became idle."""

    __slots__ = ("idle_since", "view")

    def __init__(self, view: memoryview) -> None:
        self.view, self.idle_since = view, 0


class _Lease(weakref.ref[npt.NDArray[Any]]):
    """Tells when the array that covers a slot is gone."""

    __slots__ = ("slot",)
    slot: Slot


class KeptMemory:
    """Arrays whose memory is used again as soon as nothing refers to it; for any number of threads.

    One array covers a slot. It is no owner of its memory, so views do not look behind it: whatever is made of it, or of
    what was made of it, be it a view, a tensor, a DLPack capsule or a buffer, holds a reference to it. When it dies,
    nothing refers to the memory.

    It is bounded: there are no more slots than arrays that lived at the same time, idle ones are freed after `_AGE`
    arrays, and all of them when no array is left.
    """

    def __init__(self) -> None:
        # An array may die in any thread, also while this one is in here, so a lock could wait for itself. Each
        # operation on these two is atomic instead, and a slot is taken out of `_idle` before it is used.
        self._idle: deque[Slot] = deque()
        self._used: dict[int, _Lease] = {}
        self._made = 0

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A new array of any content."""
        of, count = np.dtype(dtype), math.prod(shape)
        if count * of.itemsize < LARGE:
            return np.empty(shape, of)
        slot = self._taken(count * of.itemsize) or Slot(np.empty(count * of.itemsize, np.uint8).data)
        cover = np.frombuffer(slot.view, of, count)
        lease = _Lease(cover, self._end)
        lease.slot = slot
        self._used[id(lease)] = lease
        return cover.reshape(shape)

    def _taken(self, size: int) -> Slot | None:
        """An idle slot of at least `size` bytes, if possible one that may still be in the processor's cache."""
        self._made += 1
        found, others = None, list[Slot]()
        with suppress(IndexError):
            while self._made - self._idle[0].idle_since > _AGE:
                self._idle.popleft()
            while found is None:
                slot = self._idle.pop()
                if size <= len(slot.view) <= _SLACK * size:
                    found = slot
                else:
                    others.append(slot)
        self._idle.extend(reversed(others))
        return found

    def _end(self, lease: weakref.ref[npt.NDArray[Any]]) -> None:
        slot = self._used.pop(id(lease)).slot
        slot.idle_since = self._made
        self._idle.append(slot)
        if not self._used:
            self._idle.clear()


_KEPT = KeptMemory()


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A new array of any content, in memory that this process keeps."""
    return _KEPT.empty(shape, dtype)
