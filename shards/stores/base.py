"""What a place of shards can do: ranges of named files, their sizes, and which names there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Range(NamedTuple):
    """`size` bytes of the file `name` from byte `offset` on."""

    name: str
    offset: int
    size: int


class Store(Protocol):
    """Reads the files of one split, from many threads; a copy of it in another process reads the same.

    A name is a path from the split's location, with `/` between its parts. A tar that others wrote may lie outside
    (`../x.tar`).
    """

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset`; StoreError where the file does not have them."""
        ...

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """The bytes of each range; StoreError as `read`."""
        ...

    def size(self, name: str) -> int:
        """The size of the file in bytes; StoreError where there is none."""
        ...

    def names(self, prefix: str = "") -> list[str]:
        """The sorted names of the files in the location that begin with `prefix`."""
        ...
