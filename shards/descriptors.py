"""File descriptors that a new process inherits, and how its arguments refer to them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Protocol


class Descriptor:
    """A descriptor among the arguments of a process; in the new process, `number` is the inherited descriptor."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Callable[[Detachable], Descriptor], tuple[Detachable]]:
        return _receive, (pass_on_descriptors(self.number),)


class Detachable(Protocol):
    """Placeholder for a descriptor in the pickle for a process that is being started."""

    def detach(self) -> int:
        """The descriptor in the new process, which must close it."""
        ...


def _receive(passed: Detachable) -> Descriptor:
    return Descriptor(passed.detach())


class _Passed(threading.local):
    """The descriptors that the process started by this thread will inherit; None if no process is being started."""

    files: list[int] | None = None


_passed = _Passed()
_inherited: list[int] = []


@contextmanager
def collect_passed() -> Iterator[list[int]]:
    """Collect the descriptors to hand over to a process that `shards/processes.py` starts."""
    before, _passed.files = _passed.files, []
    try:
        yield _passed.files
    finally:
        _passed.files = before


def note_inherited(files: Sequence[int]) -> None:
    """Store the descriptors that this process received, in the order in which they were handed over."""
    _inherited[:] = files


def is_starting_process() -> bool:
    """Return True if the current pickling is for a process that is being started, also by multiprocessing."""
    return _passed.files is not None or get_spawning_popen() is not None


def pass_on_descriptors(descriptor: int) -> Detachable:
    """Return the placeholder for a descriptor in the pickle for a process that is being started."""
    if _passed.files is None:
        return DupFd(descriptor)
    _passed.files.append(descriptor)
    return _Inherited(len(_passed.files) - 1)


@dataclass(frozen=True, slots=True)
class _Inherited:
    place: int

    def detach(self) -> int:
        return _inherited[self.place]
