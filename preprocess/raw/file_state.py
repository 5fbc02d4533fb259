"""State of a source's file: its size, modification time and hash."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from maskstream.preprocess.source import RejectError

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class FileState:
    """State of a file.

    Attributes:
        size_bytes: Size in bytes.
        mtime_ns: Modification time in ns.
        xxh3_64: Hash of its bytes in hex; "" for a folder or another path that is not a regular file.
    """

    size_bytes: int
    mtime_ns: int
    xxh3_64: str

    def to_json(self) -> list[int | str]:
        return [self.size_bytes, self.mtime_ns, self.xxh3_64]

    @classmethod
    def from_json(cls, data: list[Any]) -> FileState:
        size_bytes, mtime_ns, xxh3_64 = data
        return cls(size_bytes=size_bytes, mtime_ns=mtime_ns, xxh3_64=xxh3_64)

    def is_as_old(self, path: Path) -> bool:
        """Return whether the file at `path` has this size and modification time. Raises OSError if it is missing."""
        found = path.stat()
        return (found.st_size, found.st_mtime_ns) == (self.size_bytes, self.mtime_ns)

    def matches(self, path: Path) -> bool:
        """Return whether the file at `path` has these bytes. They are read only if its modification time differs.

        Raises:
            OSError: The file cannot be read.
        """
        found = path.stat()
        if found.st_size != self.size_bytes:
            return False
        return found.st_mtime_ns == self.mtime_ns or ("" != self.xxh3_64 == read_state(path).xxh3_64)


class DamagedFileError(RejectError):
    """A source's file cannot be read in full anywhere: a damaged archive member, or a row without bytes.

    Attributes:
        state: Known state of the file.
    """

    def __init__(self, stage: str, reason: str, state: FileState) -> None:
        super().__init__(stage, reason)
        self.state = state


def read_state(path: Path) -> FileState:
    """Read the whole file at `path` and return its state. Raises OSError if it cannot be read."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        return FileState(size_bytes=found.st_size, mtime_ns=found.st_mtime_ns, xxh3_64="")
    digest = xxhash.xxh3_64()
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0) as file:
        while n := file.readinto(buffer):
            digest.update(buffer[:n])
    return FileState(size_bytes=found.st_size, mtime_ns=found.st_mtime_ns, xxh3_64=digest.hexdigest())


def set_age(path: Path, mtime_ns: int) -> None:
    """Set a file's modification time, in ns."""
    os.utime(path, ns=(mtime_ns, mtime_ns))
