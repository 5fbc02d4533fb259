"""Reuse of batch memory: a new batch uses the memory of a batch that no longer exists.

Fresh memory costs as much as filling it, because the operating system clears each page on first use.
"""

import math
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

LARGE = 1 << 16
"""Arrays of at least this many bytes use kept memory; the allocator already reuses memory of smaller ones."""
_SLACK = 1.25
"""An array may use memory of up to this multiple of its size."""
_AGE = 64
"""Memory is freed if it stays idle while this many arrays are allocated."""

T = TypeVar("T")
AnyArray = npt.NDArray[Any]


class _Cover(weakref.ref[AnyArray], Generic[T]):
    __slots__ = ("of",)
    of: T


class Covers(Generic[T]):
    """Arrays on pieces of memory; calls `ended` with a piece's identifier when its array is destroyed.

    Such an array does not own its memory, so views keep a reference to the array itself: any view, tensor, DLPack
    capsule or buffer derived from it keeps it alive. When it is destroyed, nothing refers to the memory any more. This
    can happen in any thread, even in the middle of another call, so `ended` takes no lock.
    """

    def __init__(self, ended: Callable[[T], None]) -> None:
        self._ended = ended
        self._living: dict[int, _Cover[T]] = {}

    def __len__(self) -> int:
        return len(self._living)

    def made(self, of: T, view: memoryview, dtype: np.dtype[Any], count: int) -> AnyArray:
        """Create an array of `count` values at the start of a piece of memory identified by `of`."""
        array: AnyArray = np.frombuffer(view, dtype, count)
        cover = _Cover[T](array, self._end)
        cover.of = of
        self._living[id(cover)] = cover
        return array

    def _end(self, cover: weakref.ref[AnyArray]) -> None:
        self._ended(self._living.pop(id(cover)).of)


class Slot:
    """A piece of memory. `idle_since` is the number of slots requested before it became idle."""

    __slots__ = ("idle_since", "view")

    def __init__(self, view: memoryview) -> None:
        self.view, self.idle_since = view, 0


SlotT = TypeVar("SlotT", bound=Slot)


class KeptMemory(ABC, Generic[SlotT]):
    """Allocator that reuses an array's memory as soon as nothing refers to it; thread-safe."""

    def __init__(self) -> None:
        self._idle: deque[SlotT] = deque()
        self._covers = Covers[SlotT](self._ended)
        self._asked = 0

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> AnyArray:
        """Allocate an uninitialised array."""
        of, count = np.dtype(dtype), math.prod(shape)
        if count * of.itemsize < LARGE or (slot := self._slot(count * of.itemsize)) is None:
            return np.empty(shape, of)
        return self._covers.made(slot, slot.view, of, count).reshape(shape)

    @abstractmethod
    def _slot(self, size: int) -> SlotT | None:
        """Return a slot with at least `size` bytes."""

    @abstractmethod
    def _ended(self, slot: SlotT) -> None:
        """Handle the end of a slot's array, in any thread, without a lock."""

    def _add_idle(self, slot: SlotT) -> None:
        slot.idle_since = self._asked
        self._idle.append(slot)

    def _take_idle(self, size: int) -> SlotT | None:
        """Take an idle slot of about `size` bytes, preferably one that may still be in the CPU cache."""
        self._asked += 1
        found, others = None, list[SlotT]()
        try:  # `suppress` would double the time, and this runs for each array of a batch
            while found is None:
                slot = self._idle.pop()
                if size <= len(slot.view) <= _SLACK * size:
                    found = slot
                else:
                    others.append(slot)
        except IndexError:
            pass
        self._idle.extend(reversed(others))
        return found

    def _take_old(self) -> list[SlotT]:
        """Take the slots that have been idle for long."""
        old = list[SlotT]()
        try:
            while self._asked - self._idle[0].idle_since > _AGE:
                old.append(self._idle.popleft())
        except IndexError:
            pass
        return old


class OwnMemory(KeptMemory[Slot]):
    """Memory of this process.

    It is bounded: there are no more slots than arrays that lived at the same time, idle slots are freed after `_AGE`
    arrays, and all of them when no array is left.
    """

    # No lock is needed: each operation on the idle slots is atomic, and a slot is removed before it is used.

    def _slot(self, size: int) -> Slot:
        self._take_old()
        return self._take_idle(size) or Slot(np.empty(size, np.uint8).data)

    def _ended(self, slot: Slot) -> None:
        self._add_idle(slot)
        if not len(self._covers):
            self._idle.clear()


_kept: KeptMemory[Any] = OwnMemory()


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> AnyArray:
    """Allocate an uninitialised array in memory that this process reuses."""
    return _kept.empty(shape, dtype)


def keep_in(memory: KeptMemory[Any]) -> None:
    """Allocate this process's arrays in `memory` from now on."""
    global _kept
    _kept = memory
