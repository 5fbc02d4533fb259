"""The store of an index of tars at URLs: a tar that is named by its URL is read there.

All other files, such as the sums of these tars, are in the split's own folder, which may be local.
"""

from __future__ import annotations

from ..errors import ShardError, StoreError
from .base import ShardFile, Store
from .block_cache import BlockCache
from .by_folder import ByFolder, ByName, by_folder
from .elsewhere import folder_of, joined
from .location import is_url


class FarTars(ByFolder):
    """The `Store` of a split some of whose shards are named by URLs."""

    @staticmethod
    def is_away(name: str) -> bool:
        """See ByFolder."""
        return is_url(name)

    def _made(self, folder: str, shards: ByName) -> Store:
        from .read_ahead import ReadAhead
        from .remote import RemoteStore  # imported here because a local split needs no clients of stores

        return ReadAhead(RemoteStore(folder, shards=shards, cache=self._cache, sums=self._home))

    def of_split(self, shards: ByName, *, outside: bool) -> FarTars:
        """The same store with these shards."""
        home = self._home.of_split(_named(shards, urls=False), outside=outside)
        return FarTars(home, self._cache, by_folder(_named(shards, urls=True)))


def store_of_split(store: Store, shards: ByName, *, outside: bool, cache: BlockCache | None = None) -> Store:
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
    return FarTars(store, cache).of_split(shards, outside=outside)


def _named(shards: ByName, *, urls: bool) -> dict[str, ShardFile]:
    return {name: file for name, file in shards.items() if is_url(name) == urls}
