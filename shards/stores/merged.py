"""The store of a merged split: each file is read by the store of its own folder, with the sums that are there."""

from __future__ import annotations

from .base import Store
from .block_cache import BlockCache
from .by_folder import ByFolder, ByName, by_folder
from .elsewhere import is_elsewhere, joined
from .location import opened


class MergedStore(ByFolder):
    """The `Store` of a split whose shards and parts of the manifest are in several folders (elsewhere.py)."""

    @staticmethod
    def is_away(name: str) -> bool:
        """See ByFolder."""
        return is_elsewhere(name)

    def _made(self, folder: str, shards: ByName) -> Store:
        return opened(joined(self.location, folder), self._cache).of_split(shards, outside=False)

    def of_split(self, shards: ByName, *, outside: bool) -> MergedStore:
        """The same store with these shards. `outside` is of no use: a merged split has no foreign tars."""
        folders = by_folder(shards)
        home = self._home.of_split(folders.pop("", {}), outside=False)
        return MergedStore(home, self._cache, folders)


def merged_store(store: Store, cache: BlockCache | None) -> MergedStore:
    """The store of a merged split whose own folder `store` reads."""
    return store if isinstance(store, MergedStore) else MergedStore(store, cache)
