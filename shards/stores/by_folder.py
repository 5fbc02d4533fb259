"""Stores of splits whose files are in several folders: each file is read by the store of its folder."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Self

from .base import Announcement, Range, ShardFile, Store, Together
from .block_cache import BlockCache
from .elsewhere import file_of, folder_of

ByName = Mapping[str, ShardFile]


class ByFolder(ABC):
    """A `Store` that reads some names in the split's own folder, and others in folders that these names begin with.

    home: the store of the split's own folder. cache: keeps what is read of URLs. shards: those of other folders, by
    folder and by name there.
    """

    def __init__(
        self, home: Store, cache: BlockCache | None = None, shards: Mapping[str, ByName] | None = None
    ) -> None:
        self._home, self._cache, self._shards = home, cache, dict(shards or {})
        self._lock = threading.Lock()
        self._stores: dict[str, Store] = {}

    def __reduce__(self) -> tuple[type[Self], tuple[Store, BlockCache | None, Mapping[str, ByName]]]:
        return type(self), (self._home, self._cache, self._shards)

    @staticmethod
    @abstractmethod
    def is_away(name: str) -> bool:
        """Whether a name is read in the folder that it begins with."""

    @abstractmethod
    def _made(self, folder: str, shards: ByName) -> Store:
        """The store of another folder, with the shards that are there."""

    @abstractmethod
    def of_split(self, shards: ByName, *, outside: bool) -> Store:
        """The store of a split with these shards (see `Store`)."""

    @property
    def location(self) -> str:
        """That of the split's own folder."""
        return self._home.location

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset`."""
        store, file = self._at(name)
        return store.read(file, offset, size)

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read each range, those of a folder at the same time."""
        data: dict[int, bytes] = {}
        for store, numbers, own in self._grouped(ranges):
            data |= zip(numbers, store.read_many(own), strict=True)
        return [data[number] for number in range(len(ranges))]

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

    def announce(self, ranges: Sequence[Range]) -> Announcement:
        """Says to the store of each folder that its ranges will be read soon."""
        return Together(tuple(store.announce(own) for store, _, own in self._grouped(ranges)))

    def _at(self, name: str) -> tuple[Store, str]:
        """The store that reads a file, and the file's name there."""
        if not self.is_away(name):
            return self._home, name
        folder = folder_of(name)
        with self._lock:
            if folder not in self._stores:
                self._stores[folder] = self._made(folder, self._shards.get(folder, {}))
            return self._stores[folder], file_of(name)

    def _grouped(self, ranges: Sequence[Range]) -> list[tuple[Store, list[int], list[Range]]]:
        """The ranges by store: their numbers in `ranges`, and the ranges with the names of that store."""
        groups: dict[int, tuple[Store, list[int], list[Range]]] = {}
        for number, one in enumerate(ranges):
            store, file = self._at(one.name)
            _, numbers, own = groups.setdefault(id(store), (store, [], []))
            numbers.append(number)
            own.append(one._replace(name=file))
        return list(groups.values())


def by_folder(shards: ByName) -> dict[str, dict[str, ShardFile]]:
    """Shards by their folders, and by their names there."""
    found: defaultdict[str, dict[str, ShardFile]] = defaultdict(dict)
    for name, file in shards.items():
        found[folder_of(name)][file_of(name)] = file
    return dict(found)
