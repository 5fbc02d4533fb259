"""What this process may still take from its machine: address space, file descriptors, threads.

An encoder fails in the same words when the bytes are damaged and when the machine has nothing left to give, so a
failure is judged only where the machine has enough.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading

from ..shards.errors import OutageError
from ..shards.stores.regular import NEVER_OF_BYTES

ROOM_BYTES = 4 << 30
"""The address space that must be left when a source is rejected. FFmpeg never asks for more than 2 GiB at once."""
ROOM_DESCRIPTORS = 16

_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0
"""MAP_NORESERVE, which Python 3.11 does not name: only limits refuse the mapping, not the size of the memory."""


def check_machine(error: BaseException) -> None:
    """Raise OutageError if `error`, or a cause of it, may come from what the machine lacks and not from the bytes.

    FFmpeg's decoders say "Invalid data found" where memory ran out, so every failure counts, whatever its words.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in NEVER_OF_BYTES:
            raise OutageError(f"this machine cannot go on ({cause.strerror})") from error
        cause = cause.__cause__
    if lacking := _lacking():
        raise OutageError(f"this process has too little left of its {lacking}") from error


def _lacking() -> str | None:
    """The resource that this process has too little of; None if it has enough of all."""
    if not _has_memory():
        return f"address space (less than {ROOM_BYTES >> 30} GiB; raise `ulimit -v`, or the limit of the job)"
    if not _has_descriptors():
        return f"file descriptors (fewer than {ROOM_DESCRIPTORS}; raise `ulimit -n`)"
    if not _has_threads():
        return "threads (raise `ulimit -u`)"
    return None


def _has_memory() -> bool:
    try:
        mmap.mmap(-1, ROOM_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE).close()
    except (OSError, MemoryError, OverflowError):
        return False
    return True


def _has_descriptors() -> bool:
    taken: list[int] = []
    try:
        taken += (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(ROOM_DESCRIPTORS))
    except OSError:
        return False
    finally:
        for descriptor in taken:
            os.close(descriptor)
    return True


def _has_threads() -> bool:
    thread = threading.Thread(target=bool, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return False
    thread.join()
    return True
