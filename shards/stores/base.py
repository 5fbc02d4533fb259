"""The store protocol: it reads byte ranges of named files and lists names and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Range(NamedTuple):
    """`size` bytes of the file `name`, starting at byte `offset`."""

    name: str
    offset: int
    size: int


class Store(Protocol):
    """Reads the files of one split. It is thread-safe, and a pickled copy reads the same files.

    A name is a path relative to the split's location, with `/` between its parts. A foreign tar may be outside of it
    (`../x.tar`).
    """

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset`. Raises StoreError if the file does not have them."""
        ...

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read each range. Raises StoreError as `read` does."""
        ...

    def size(self, name: str) -> int:
        """The size of the file in bytes. Raises StoreError if it does not exist."""
        ...

    def names(self, prefix: str = "") -> list[str]:
        """The sorted names that begin with `prefix`."""
        ...
