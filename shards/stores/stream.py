"""Streams: a file of a store, read from start to end as it is. They find damage, so no sums are compared."""

from __future__ import annotations

import io
import os

from .base import Store

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
