"""Memory of batches that is kept: a new batch gets that of one that is gone.

Fresh memory costs as much as filling it, because the system clears each page when it is first written.
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
"""Arrays of at least so many bytes lie in kept memory; smaller ones are the allocator's, which keeps theirs."""
_SLACK = 1.25
"""An array may get memory of up to so many times its size."""
_AGE = 64
"""Memory that is idle while so many arrays are made is freed."""

T = TypeVar("T")
AnyArray = npt.NDArray[Any]


class _Cover(weakref.ref[AnyArray], Generic[T]):
    __slots__ = ("of",)
    of: T


class Covers(Generic[T]):
    """Arrays that cover pieces of memory; `ended` is called with what a piece is called when its array dies.

    Such an array does not own its memory, so views do not look behind it: whatever is made of it, or of what was made
    of it, be it a view, a tensor, a DLPack capsule or a buffer, holds a reference to it. When it dies, nothing refers
    to the memory. It may die in any thread, also in the middle of another call, so `ended` takes no lock.
    """

    def __init__(self, ended: Callable[[T], None]) -> None:
        self._ended = ended
        self._living: dict[int, _Cover[T]] = {}

    def __len__(self) -> int:
        return len(self._living)

    def made(self, of: T, view: memoryview, dtype: np.dtype[Any], count: int) -> AnyArray:
        """An array of `count` values at the beginning of a piece of memory that is called `of`."""
        array: AnyArray = np.frombuffer(view, dtype, count)
        cover = _Cover[T](array, self._end)
        cover.of = of
        self._living[id(cover)] = cover
        return array

    def _end(self, cover: weakref.ref[AnyArray]) -> None:
        self._ended(self._living.pop(id(cover)).of)


class Slot:
    """A piece of memory. idle_since: how many slots had been asked for when it became idle."""

    __slots__ = ("idle_since", "view")

    def __init__(self, view: memoryview) -> None:
        self.view, self.idle_since = view, 0


SlotT = TypeVar("SlotT", bound=Slot)


class KeptMemory(ABC, Generic[SlotT]):
    """Arrays whose memory is used again as soon as nothing refers to it; for any number of threads."""

    def __init__(self) -> None:
        self._idle: deque[SlotT] = deque()
        self._covers = Covers[SlotT](self._ended)
        self._asked = 0

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> AnyArray:
        """A new array of any content."""
        of, count = np.dtype(dtype), math.prod(shape)
        if count * of.itemsize < LARGE or (slot := self._slot(count * of.itemsize)) is None:
            return np.empty(shape, of)
        return self._covers.made(slot, slot.view, of, count).reshape(shape)

    @abstractmethod
    def _slot(self, size: int) -> SlotT | None:
        """A slot of at least `size` bytes for an array."""

    @abstractmethod
    def _ended(self, slot: SlotT) -> None:
        """What is done when its array is gone, in any thread, without a lock."""

    def _add_idle(self, slot: SlotT) -> None:
        slot.idle_since = self._asked
        self._idle.append(slot)

    def _take_idle(self, size: int) -> SlotT | None:
        """Takes out one of about `size` bytes, if possible one that may still be in the processor's cache."""
        self._asked += 1
        found, others = None, list[SlotT]()
        try:  # `suppress` takes as long as the rest, and each array of a batch comes here
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
        """Takes out those that were idle for long."""
        old = list[SlotT]()
        try:
            while self._asked - self._idle[0].idle_since > _AGE:
                old.append(self._idle.popleft())
        except IndexError:
            pass
        return old


class OwnMemory(KeptMemory[Slot]):
    """Memory of this process.

    It is bounded: there are no more slots than arrays that lived at the same time, idle ones are freed after `_AGE`
    arrays, and all of them when no array is left.
    """

    # There is no lock: each operation on the idle slots is atomic, and a slot is taken out of them before it is used.

    def _slot(self, size: int) -> Slot:
        self._take_old()
        return self._take_idle(size) or Slot(np.empty(size, np.uint8).data)

    def _ended(self, slot: Slot) -> None:
        self._add_idle(slot)
        if not len(self._covers):
            self._idle.clear()


_kept: KeptMemory[Any] = OwnMemory()


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> AnyArray:
    """A new array of any content, in memory that this process keeps."""
    return _kept.empty(shape, dtype)


def keep_in(memory: KeptMemory[Any]) -> None:
    """Makes the arrays of this process in `memory` from now on."""
    global _kept
    _kept = memory
