"""The store of an index of tars at URLs: a tar that is named by its URL is read there.

All other files, such as the sums of these tars, are in the split's own folder, which may be local.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from ..errors import ShardError, StoreError
from .base import Announcement, Range, ShardFile, Store, Together
from .block_cache import BlockCache
from .elsewhere import file_of, folder_of, joined
from .location import is_url


class FarTars:
    """The `Store` of a split in the store `home`, some of whose shards are named by URLs."""

    def __init__(self, home: Store, shards: Mapping[str, ShardFile], cache: BlockCache | None = None) -> None:
        self._home, self._shards, self._cache = home, dict(shards), cache
        self._lock = threading.Lock()
        self._stores: dict[str, Store] = {}

    def __reduce__(self) -> tuple[Callable[..., FarTars], tuple[Store, dict[str, ShardFile], BlockCache | None]]:
        return FarTars, (self._home, self._shards, self._cache)

    @property
    def location(self) -> str:
        """That of the split's folder."""
        return self._home.location

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset`, checked by the sums in the split's folder."""
        store, name = self._at(name)
        return store.read(name, offset, size)

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read the ranges, those of one place at the same time."""
        found: dict[Range, bytes] = {}
        for store, some in self._by_store(ranges):
            found |= zip(some, store.read_many([own for _, own in some.items()]), strict=True)
        return [found[one] for one in ranges]

    def unchecked(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset` as they are."""
        store, name = self._at(name)
        return store.unchecked(name, offset, size)

    def whole(self, name: str, most: int) -> bytes:
        """The contents of a small file."""
        store, name = self._at(name)
        return store.whole(name, most)

    def size(self, name: str) -> int:
        """The size of the file in bytes."""
        store, name = self._at(name)
        return store.size(name)

    def names(self, prefix: str = "") -> list[str]:
        """The names in the split's folder."""
        return self._home.names(prefix)

    def folders(self) -> list[str]:
        """The folders in the split's folder."""
        return self._home.folders()

    def of_split(self, shards: Mapping[str, ShardFile], *, outside: bool) -> FarTars:
        """The same store with these shards."""
        home = self._home.of_split(_named(shards, urls=False), outside=outside)
        return FarTars(home, _named(shards, urls=True), self._cache)

    def announce(self, ranges: Sequence[Range]) -> Announcement:
        """Says to each place what will be read there."""
        return Together(tuple(store.announce([*some.values()]) for store, some in self._by_store(ranges)))

    def _by_store(self, ranges: Sequence[Range]) -> list[tuple[Store, dict[Range, Range]]]:
        """The ranges of each store, and what they are in it."""
        found: dict[int, tuple[Store, dict[Range, Range]]] = {}
        for one in ranges:
            store, name = self._at(one.name)
            found.setdefault(id(store), (store, {}))[1][one] = one._replace(name=name)
        return [*found.values()]

    def _at(self, name: str) -> tuple[Store, str]:
        """The store of a file, and the file's name in it."""
        if not is_url(name):
            return self._home, name
        from .read_ahead import ReadAhead
        from .remote import RemoteStore  # imported here because a local split needs no clients of stores

        folder, own = folder_of(name), file_of(name)
        with self._lock:
            if folder not in self._stores:
                here = {file_of(url): file for url, file in self._shards.items() if folder_of(url) == folder}
                far = RemoteStore(folder, shards=here, cache=self._cache, sums=self._home)
                self._stores[folder] = ReadAhead(far)
            return self._stores[folder], own


def store_of_split(
    store: Store, shards: Mapping[str, ShardFile], *, outside: bool, cache: BlockCache | None = None
) -> Store:
    """The store of a split with these shards (`Store.of_split`), some of which may be named by URLs.

    cache: keeps what is read of these. Raises ShardError for a place that the split may not name (`joined`).
    """
    far = _named(shards, urls=True) if outside else {}
    if not far or isinstance(store, FarTars):
        return store.of_split(shards, outside=outside)
    for folder in {folder_of(name) for name in far}:
        try:
            joined(store.location, folder)
        except StoreError as error:
            raise ShardError(str(error)) from error
    return FarTars(store.of_split(_named(shards, urls=False), outside=outside), far, cache)


def _named(shards: Mapping[str, ShardFile], *, urls: bool) -> dict[str, ShardFile]:
    return {name: file for name, file in shards.items() if is_url(name) == urls}
