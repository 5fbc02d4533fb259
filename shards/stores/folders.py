"""Splits whose files are in several folders: how their files are named, and the store that reads them.

A name is then a folder and a file: `../other/train/toy-000000.tar`, or `s3://bucket/train/toy-000000.tar`. The folder
is a URL, or a path from the split's own folder that begins with `./` or `../`. A merged split names its shards and
manifest parts this way, and an index of foreign tars names tars at URLs this way.
"""

from __future__ import annotations

import os
import posixpath
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from maskstream.shards.errors import ShardError, StoreError

from .base import Announcement, Range, RoutedStore, ShardFile, Store, Together
from .block_cache import BlockCache
from .open import open_store
from .url import is_url, parse_place

_RELATIVE = re.compile(r"\.\.?(/[^/\0]+)*")


def get_folder_name(name: str) -> str:
    """Return the folder of a name; "" for a file in the split's own folder."""
    return name.rpartition("/")[0]


def file_name(name: str) -> str:
    """Return a name without its folder."""
    return name.rpartition("/")[2]


def is_elsewhere(name: str) -> bool:
    """Return True if a name refers to a file in another folder."""
    return bool(_RELATIVE.fullmatch(get_folder_name(name))) or is_url(get_folder_name(name))


def joined(location: str, folder: str) -> str:
    """Return the location of the folder of such a name, for a split at a location.

    A split at a URL may only name folders on its own server or bucket, so that its users know where requests go.

    Raises:
        StoreError: The folder is invalid, or on another server or bucket.
    """
    if is_url(folder):
        try:
            place = parse_place(folder)
        except ValueError as error:
            raise StoreError(f"{location} refers to an invalid folder: {error}") from error
        if is_url(location) and parse_place(location)[:2] != place[:2]:
            raise StoreError(f"{location} refers to {folder}, which is on a different server or bucket")
        return folder
    if not _RELATIVE.fullmatch(folder):
        raise StoreError(
            f"{location} refers to the folder {folder!r}; expected paths that begin with ./ or ../, and URLs"
        )
    if not is_url(location):
        return str(Path(location) / folder)
    scheme, _, path = location.partition("://")
    server, _, inside = path.partition("/")
    found = posixpath.normpath(posixpath.join(inside or ".", folder))
    url = f"{scheme}://{server}" if found == "." else f"{scheme}://{server}/{found}"
    if found.startswith("..") or parse_place(url)[:2] != parse_place(location)[:2]:
        raise StoreError(f"{location} refers to the folder {folder!r}, which is outside its server or bucket")
    return url


def seen_from(location: str | Path, target: str | Path) -> str:
    """Return how a split at `location` names the folder `target`. Raises ValueError if it cannot."""
    if not is_url(location):
        if is_url(target):
            return str(target).rstrip("/")
        return _format_dotted(os.path.relpath(Path(target).resolve(), Path(location).resolve()))
    if not is_url(target) or parse_place(str(location))[:2] != parse_place(str(target))[:2]:
        raise ValueError(
            f"{location} cannot refer to {target}: a split at a URL can only refer to folders on the same "
            "server or in the same bucket; choose a local folder for it, or one next to the others"
        )
    if parse_place(str(location)).scheme == "hf":
        return str(target).rstrip("/")
    folders = (f"/{parse_place(str(one)).folder}" for one in (target, location))
    return _format_dotted(posixpath.relpath(*folders))


def _format_dotted(path: str) -> str:
    return path if path == "." or path.startswith("..") else f"./{path}"


ByName = Mapping[str, ShardFile]
_Parts = tuple[Store, BlockCache | None, Mapping[str, ByName], bool]


class FoldersStore(RoutedStore):
    """The `Store` of a split whose files are in several folders.

    Args:
        home: Store of the split's own folder.
        cache: Cache of the bytes that are read from URLs.
        shards: Shards of other folders, by folder and by name there.
        foreign: True for an index of foreign tars: tars at URLs are read there, and all other files, such as their
            sums, in the split's own folder. In a merged split each folder has its own sums.
    """

    def __init__(
        self,
        home: Store,
        cache: BlockCache | None = None,
        shards: Mapping[str, ByName] | None = None,
        *,
        foreign: bool = False,
    ) -> None:
        super().__init__(home)
        self._cache, self._shards, self.foreign = cache, dict(shards or {}), foreign
        self._lock = threading.Lock()
        self._stores: dict[str, Store] = {}

    def __reduce__(self) -> tuple[Callable[..., FoldersStore], _Parts]:
        return _open_folders_store, (self._home, self._cache, self._shards, self.foreign)

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset`, checked as in `Store.read`."""
        store, file = self._at(name)
        return store.read(file, offset, size)

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read each range. The ranges of one folder are read at the same time."""
        data: dict[int, bytes] = {}
        for store, numbers, own in self._grouped(ranges):
            data |= zip(numbers, store.read_many(own), strict=True)
        return [data[number] for number in range(len(ranges))]

    def announce(self, ranges: Sequence[Range]) -> Announcement:
        """Announce the ranges to the stores of their folders."""
        return Together(tuple(store.announce(own) for store, _, own in self._grouped(ranges)))

    def of_split(self, shards: ByName, *, outside: bool) -> FoldersStore:
        """Return the same store with these shards."""
        own: dict[str, ShardFile] = {}
        others: defaultdict[str, dict[str, ShardFile]] = defaultdict(dict)
        for name, file in shards.items():
            if self._is_away(name):
                others[get_folder_name(name)][file_name(name)] = file
            else:
                own[name] = file
        home = self._home.of_split(own, outside=outside and self.foreign)
        return FoldersStore(home, self._cache, others, foreign=self.foreign)

    def _is_away(self, name: str) -> bool:
        """Return True if a file is read from the folder in its name."""
        return is_url(name) if self.foreign else is_elsewhere(name)

    def _at(self, name: str) -> tuple[Store, str]:
        """Return the store that reads a file, and the file's name there."""
        if not self._is_away(name):
            return self._home, name
        folder = get_folder_name(name)
        with self._lock:
            if folder not in self._stores:
                self._stores[folder] = self._open(folder, self._shards.get(folder, {}))
            return self._stores[folder], file_name(name)

    def _open(self, folder: str, shards: ByName) -> Store:
        """Open the store of another folder, with its shards."""
        if not self.foreign:
            return open_store(joined(self.location, folder), self._cache).of_split(shards, outside=False)
        from .read_ahead import ReadAhead
        from .remote import RemoteStore  # a local split needs no clients of stores

        return ReadAhead(RemoteStore(folder, shards=shards, cache=self._cache, sums=self._home))

    def _grouped(self, ranges: Sequence[Range]) -> list[tuple[Store, list[int], list[Range]]]:
        """Group the ranges by store: the store, their numbers in `ranges`, and the ranges with that store's names."""
        groups: dict[int, tuple[Store, list[int], list[Range]]] = {}
        for number, one in enumerate(ranges):
            store, file = self._at(one.name)
            _, numbers, own = groups.setdefault(id(store), (store, [], []))
            numbers.append(number)
            own.append(one._replace(name=file))
        return list(groups.values())


def _open_folders_store(
    home: Store, cache: BlockCache | None, shards: Mapping[str, ByName], foreign: bool
) -> FoldersStore:
    return FoldersStore(home, cache, shards, foreign=foreign)


def open_merged_store(store: Store, cache: BlockCache | None) -> FoldersStore:
    """Return the store of a merged split, given the store of its folder."""
    return store if isinstance(store, FoldersStore) and not store.foreign else FoldersStore(store, cache)


def store_of_split(store: Store, shards: ByName, *, outside: bool, cache: BlockCache | None = None) -> Store:
    """Return the store of a split with these shards (`Store.of_split`), including shards at URLs.

    Args:
        store: Store of the split's folder.
        shards: Sizes and checksums of the tars and packet tables, by name.
        outside: True if tars may be outside of the folder.
        cache: Cache of the bytes that are read from URLs.

    Raises:
        ShardError: The split names a folder that it may not name (`joined`).
    """
    remote = [name for name in shards if is_url(name)] if outside else []
    if not remote or (isinstance(store, FoldersStore) and store.foreign):
        return store.of_split(shards, outside=outside)
    for folder in {get_folder_name(name) for name in remote}:
        try:
            joined(store.location, folder)
        except StoreError as error:
            raise ShardError(str(error)) from error
    return FoldersStore(store, cache, foreign=True).of_split(shards, outside=outside)
