"""The store protocol: all files of a split are read through it."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Range(NamedTuple):
    """`size` bytes of the file `name`, starting at byte `offset`."""

    name: str
    offset: int
    size: int


class Announcement(Protocol):
    """Ranges that will be read soon. They may be kept in memory until they are dropped."""

    def drop(self) -> None: ...


class ShardFile(NamedTuple):
    """Size (None for a packet table, whose size is not stored) and sha256 of a tar or packet table,
    from dataset.json.
    """

    size_bytes: int | None
    sha256: str


@dataclass(frozen=True, slots=True)
class Together:
    """Combines several announcements into one. A store that does not read ahead returns an empty one."""

    parts: tuple[Announcement, ...] = ()

    def drop(self) -> None:
        """Drop all of them."""
        for part in self.parts:
            part.drop()


UNHEEDED = Together()


class Store(Protocol):
    """Reads the files of one split. It is thread-safe, and a pickled copy reads the same files.

    A name is a path relative to the split's location, with `/` between its parts. A foreign tar may be outside of it
    (`../x.tar`).

    Raises:
        MissingFileError: A file does not exist (all methods).
        StoreError: The bytes differ from those that were written (all methods).
        OutageError: The files cannot be reached now (all methods).
    """

    @property
    def location(self) -> str:
        """Path or URL of the folder, for messages and for opening it again."""
        ...

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset`, checked against the file's block sums if it has any.

        Raises StoreError if the file is too short.
        """
        ...

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read each range. Raises StoreError as `read` does."""
        ...

    def unchecked(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset` without checking them against the sums."""
        ...

    def whole(self, name: str, most: int) -> bytes:
        """Return the contents of a small file, without checking sums. Raises StoreError if it has more than `most`
        bytes.
        """
        ...

    def size(self, name: str) -> int:
        """Return the size of the file in bytes."""
        ...

    def names(self, prefix: str = "") -> list[str]:
        """Return the sorted names, with `prefix`, of the files in the folder and below it.

        Raises UnlistedError if the store cannot list files.
        """
        ...

    def folders(self) -> list[str]:
        """Return the sorted names of the subfolders. Raises UnlistedError if the store cannot list files."""
        ...

    def of_split(self, shards: Mapping[str, ShardFile], *, outside: bool) -> Store:
        """Return the store of a split with these shards. It need not query their sizes, and may cache their contents.

        Args:
            shards: Sizes and checksums of the split's tars and packet tables, by name.
            outside: True if tars may be outside of the folder, as foreign ones may.
        """
        ...

    def announce(self, ranges: Sequence[Range]) -> Announcement:
        """Announce that these ranges will be read soon. This is only a hint: results and errors are the same without
        it.
        """
        ...


class RoutedStore:
    """A store that reads its files through other stores.

    Args:
        home: Store of the split's own folder.
    """

    def __init__(self, home: Store) -> None:
        self._home = home

    def _at(self, name: str) -> tuple[Store, str]:
        """Return the store that reads a file, and the file's name there."""
        return self._home, name

    @property
    def location(self) -> str:
        """Path or URL of the split's own folder."""
        return self._home.location

    def unchecked(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset` without checking them against the sums."""
        store, file = self._at(name)
        return store.unchecked(file, offset, size)

    def whole(self, name: str, most: int) -> bytes:
        """Return the contents of a file of at most `most` bytes."""
        store, file = self._at(name)
        return store.whole(file, most)

    def size(self, name: str) -> int:
        """Return the size of the file in bytes."""
        store, file = self._at(name)
        return store.size(file)

    def names(self, prefix: str = "") -> list[str]:
        """Return the sorted names, with `prefix`, of the files in the split's own folder and below it."""
        return self._home.names(prefix)

    def folders(self) -> list[str]:
        """Return the sorted names of the subfolders of the split's own folder."""
        return self._home.folders()


CHUNK_BYTES = 4 << 20
"""Bytes per read of a stream. A remote store fetches each chunk with one request."""


def stream(store: Store, name: str) -> io.BufferedReader:
    """Open the file `name` as a stream. Raises StoreError if it does not exist, also while it is read."""
    return io.BufferedReader(_Raw(store, name), CHUNK_BYTES)


class _Raw(io.RawIOBase):
    """Unbuffered stream over a store's file."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._size = store.size(name)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        size = max(min(len(buffer), self._size - self._position), 0)
        buffer[:size] = self._store.unchecked(self._name, self._position, size)
        self._position += size
        return size
