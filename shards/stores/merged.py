"""The store of a merged split: each file is read by the store of its own folder, with the sums that are there."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from .base import Announcement, Range, ShardFile, Store, Together
from .block_cache import BlockCache
from .elsewhere import file_of, folder_of, is_elsewhere, joined
from .location import opened

_Shards = dict[str, dict[str, ShardFile]]


class MergedStore:
    """The `Store` of a split whose shards and parts of the manifest are in several folders (elsewhere.py).

    home: the store of the split's own folder. cache: keeps what is read of URLs. shards: of each folder.
    """

    def __init__(self, home: Store, cache: BlockCache | None = None, shards: _Shards | None = None) -> None:
        self._home, self._cache, self._shards = home, cache, shards or {}
        self._lock = threading.Lock()
        self._opened: dict[str, Store] = {}

    def __reduce__(self) -> tuple[Callable[..., MergedStore], tuple[Store, BlockCache | None, _Shards]]:
        return MergedStore, (self._home, self._cache, self._shards)

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

    def of_split(self, shards: Mapping[str, ShardFile], *, outside: bool) -> Store:
        """The same store with these shards. `outside` is of no use: a merged split has no foreign tars."""
        by_folder: defaultdict[str, dict[str, ShardFile]] = defaultdict(dict)
        for name, file in shards.items():
            by_folder[folder_of(name)][file_of(name)] = file
        home = self._home.of_split(by_folder.pop("", {}), outside=False)
        return MergedStore(home, self._cache, dict(by_folder))

    def announce(self, ranges: Sequence[Range]) -> Announcement:
        """Says to the store of each folder that its ranges will be read soon."""
        return Together(tuple(store.announce(own) for store, _, own in self._grouped(ranges)))

    def _at(self, name: str) -> tuple[Store, str]:
        """The store that reads a file, and the file's name there."""
        if not is_elsewhere(name):
            return self._home, name
        folder = folder_of(name)
        with self._lock:
            if folder not in self._opened:
                store = opened(joined(self.location, folder), self._cache)
                self._opened[folder] = store.of_split(self._shards.get(folder, {}), outside=False)
            return self._opened[folder], file_of(name)

    def _grouped(self, ranges: Sequence[Range]) -> list[tuple[Store, list[int], list[Range]]]:
        """The ranges by folder: its store, their numbers in `ranges`, and the ranges with the names of that store."""
        groups: dict[str, tuple[Store, list[int], list[Range]]] = {}
        for number, one in enumerate(ranges):
            store, file = self._at(one.name)
            folder = folder_of(one.name) if is_elsewhere(one.name) else ""
            _, numbers, own = groups.setdefault(folder, (store, [], []))
            numbers.append(number)
            own.append(one._replace(name=file))
        return list(groups.values())


def merged_store(store: Store, cache: BlockCache | None) -> MergedStore:
    """The store of a merged split whose own folder `store` reads."""
    return store if isinstance(store, MergedStore) else MergedStore(store, cache)
