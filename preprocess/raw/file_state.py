"""The state of a source's file: its size, its modification time and a hash of its bytes, from a plain read."""

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
    """A file's size, its modification time in ns, and the xxh3_64 of its bytes in hex.

    What is no regular file, such as a folder, has no bytes, and its `xxh3_64` is "".
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
        """Whether the file at `path` has this size and modification time. Raises OSError if there is none."""
        found = path.stat()
        return (found.st_size, found.st_mtime_ns) == (self.size_bytes, self.mtime_ns)

    def matches(self, path: Path) -> bool:
        """Whether the file at `path` has these bytes, which are read only if its modification time is another.

        Raises OSError if it cannot be read.
        """
        found = path.stat()
        if found.st_size != self.size_bytes:
            return False
        return found.st_mtime_ns == self.mtime_ns or ("" != self.xxh3_64 == read_state(path).xxh3_64)


class DamagedFileError(RejectError):
    """A file of a source cannot be had whole, whoever reads it: a damaged member of an archive, a row without bytes.
    `state` is what is known of the file.
    """

    def __init__(self, stage: str, reason: str, state: FileState) -> None:
        super().__init__(stage, reason)
        self.state = state


def read_state(path: Path) -> FileState:
    """The state of the file at `path`, which is read whole. Raises OSError if it cannot be read."""
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
    """Give a file this modification time, in ns."""
    os.utime(path, ns=(mtime_ns, mtime_ns))
