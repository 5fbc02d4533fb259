"""The store protocol: all that is read of a split is read through it."""

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
    """What dataset.json says of a tar or of a packet table, whose size it does not say."""

    size_bytes: int | None
    sha256: str


@dataclass(frozen=True, slots=True)
class Together:
    """Several announcements as one; that of a store which fetches nothing ahead is empty."""

    parts: tuple[Announcement, ...] = ()

    def drop(self) -> None:
        """Drops all of them."""
        for part in self.parts:
            part.drop()


UNHEEDED = Together()


class Store(Protocol):
    """Reads the files of one split. It is thread-safe, and a pickled copy reads the same files.

    A name is a path relative to the split's location, with `/` between its parts. A foreign tar may be outside of it
    (`../x.tar`). All methods raise MissingFileError for a name that does not exist, StoreError for bytes that are not
    those that were written, and OutageError if the files cannot be reached now.
    """

    @property
    def location(self) -> str:
        """The path or URL of the folder, for messages and for opening it again."""
        ...

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset`, compared with the file's block sums if it has any.

        Raises StoreError if the file does not have them.
        """
        ...

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read each range. Raises StoreError as `read` does."""
        ...

    def unchecked(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset` as they are, without a look at the sums."""
        ...

    def whole(self, name: str, most: int) -> bytes:
        """The contents of a small file, not compared with sums. Raises StoreError if it has more than `most` bytes."""
        ...

    def size(self, name: str) -> int:
        """The size of the file in bytes."""
        ...

    def names(self, prefix: str = "") -> list[str]:
        """The sorted names, with `prefix`, of the files in the folder and below it.

        Raises UnlistedError if the store cannot list files.
        """
        ...

    def folders(self) -> list[str]:
        """The sorted names of the folders in the folder. Raises UnlistedError if the store cannot list files."""
        ...

    def of_split(self, shards: Mapping[str, ShardFile], *, outside: bool) -> Store:
        """The store of a split with these shards. Their sizes need not be asked for, and their contents may be kept.

        outside: whether its tars may be outside of the folder, as foreign ones.
        """
        ...

    def announce(self, ranges: Sequence[Range]) -> Announcement:
        """Says that these ranges will be read soon. A hint: what is read, and its errors, are the same without it."""
        ...


class RoutedStore:
    """A store that reads its files through others. home: the one of the split's own folder."""

    def __init__(self, home: Store) -> None:
        self._home = home

    def _at(self, name: str) -> tuple[Store, str]:
        """The store that reads a file, and the file's name there."""
        return self._home, name

    @property
    def location(self) -> str:
        """The path or URL of the split's own folder."""
        return self._home.location

    def unchecked(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset` as they are."""
        store, file = self._at(name)
        return store.unchecked(file, offset, size)

    def whole(self, name: str, most: int) -> bytes:
        """The contents of a file of at most `most` bytes."""
        store, file = self._at(name)
        return store.whole(file, most)

    def size(self, name: str) -> int:
        """The size of the file in bytes."""
        store, file = self._at(name)
        return store.size(file)

    def names(self, prefix: str = "") -> list[str]:
        """The sorted names, with `prefix`, of the files in the split's own folder and below it."""
        return self._home.names(prefix)

    def folders(self) -> list[str]:
        """The sorted names of the folders in the split's own folder."""
        return self._home.folders()


CHUNK_BYTES = 4 << 20
"""How much is read at once; a remote store answers each with one request."""


def stream(store: Store, name: str) -> io.BufferedReader:
    """The file `name` as a stream. Raises StoreError if it does not exist, also while it is read."""
    return io.BufferedReader(_Raw(store, name), CHUNK_BYTES)


class _Raw(io.RawIOBase):
    """Reads a store's file at a position of its own."""

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
