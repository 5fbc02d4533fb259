"""The store of a folder in an object store or on a web server. Reads are checked as in a local folder.

It avoids needless requests: sizes come from dataset.json, and sums are fetched in pages along with the data and kept.
Only `verify` requests the sizes, because it looks for files that changed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import NamedTuple

from maskstream.shards.errors import MissingFileError, StoreError

from .base import UNHEEDED, Announcement, Range, ShardFile, Store
from .block_cache import BlockCache
from .block_sums import (
    BLOCK_BYTES,
    SUMS,
    check_blocks,
    compute_sums_size,
    find_blocks_around,
    find_sums_range,
    name_sums_file,
    say_unchecked,
)
from .remote_files import RemoteFiles, threads

PAGE_BYTES = 1 << 15
"""Bytes of a sums file per request, enough for 16 MiB of its tar."""
KEPT_BYTES = 64 << 20
"""Bytes of sums files that are kept in memory, enough for 32 GiB of tars."""

_Page = tuple[str, int]


class Sums(NamedTuple):
    """Sums of some blocks that are being fetched: pages of a sums file, and the bytes of the sums in these."""

    pages: dict[_Page, Future[bytes]]
    offset: int
    size: int


class RemoteSums:
    """Fetches and keeps sums. Threads that need the same page wait for one request.

    Args:
        fetch: Fetches the bytes [offset, offset + size) of a file, or fewer if it ends before.
    """

    def __init__(self, fetch: Callable[[str, int, int], bytes]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._pages: OrderedDict[_Page, Future[bytes]] = OrderedDict()

    def begun(self, blocks: Range, total: int, pool: Executor) -> Sums:
        """Return the sums of whole blocks of a file with `total` bytes. `pool` fetches the pages that are not in
        memory.
        """
        name = name_sums_file(blocks.name)
        if name is None:
            raise ValueError(f"{blocks.name} has no sums file")
        offset, size = find_sums_range(blocks.offset, blocks.size)
        first, last = offset // PAGE_BYTES, (offset + size - 1) // PAGE_BYTES
        end = compute_sums_size(total)
        pages = {(name, n): self._page((name, n), end, pool) for n in range(first, last + 1)}
        return Sums(pages, offset - first * PAGE_BYTES, size)

    def read(self, sums: Sums) -> bytes | None:
        """Wait for the sums and return them; None if there is no sums file."""
        try:
            data = b"".join(page.result() for page in sums.pages.values())
        except MissingFileError:
            return None
        return data[sums.offset : sums.offset + sums.size]

    def forget(self, sums: Sums) -> None:
        """Drop these pages, so that they are fetched again."""
        with self._lock:
            for name, page in sums.pages.items():
                if self._pages.get(name) is page:
                    del self._pages[name]

    def _page(self, page: _Page, end: int, pool: Executor) -> Future[bytes]:
        with self._lock:
            found = self._pages.pop(page, None)
            if found is None or _has_failed(found):
                at = page[1] * PAGE_BYTES
                found = pool.submit(self._fetch, page[0], at, min(PAGE_BYTES, end - at))
            self._pages[page] = found
            while len(self._pages) > KEPT_BYTES // PAGE_BYTES:
                self._pages.popitem(last=False)
            return found


def _has_failed(page: Future[bytes]) -> bool:
    """Return True if a page must be fetched again. A missing sums file is a valid answer."""
    return page.done() and not isinstance(page.exception(), MissingFileError | None)


_Parts = tuple[str, dict[str, ShardFile], bool, BlockCache | None, Store | None]


class RemoteStore:
    """The `Store` of a folder at a URL.

    A request is retried as client.py defines. Then it raises an OutageError, which does not cause a sample to be
    rejected. A pickled copy takes its credentials from its own environment.

    Args:
        location: URL of the folder.
        shards: Sizes and checksums of the shards in dataset.json. The sizes of other files are requested once.
        outside: True if files may be outside of the folder, as foreign tars may.
        cache: Cache of the node, which keeps files that have sums.
        sums: Store of the sums files, if they are not in the folder.
    """

    def __init__(
        self,
        location: str,
        *,
        shards: Mapping[str, ShardFile] | None = None,
        outside: bool = False,
        cache: BlockCache | None = None,
        sums: Store | None = None,
    ) -> None:
        self._files = RemoteFiles(location, outside=outside)
        self._cache = cache
        self._sums_at = sums
        self._shards = dict(shards or {})
        self._asked: dict[str, int] = {}
        self._sums = RemoteSums(self._page)
        known = self._shards.items() if cache else ()
        self._sha256 = {
            of: file.sha256 for name, file in known for of in (name, name_sums_file(name)) if of is not None
        }

    def __reduce__(self) -> tuple[Callable[..., RemoteStore], _Parts]:
        return _store_of, (self.location, self._shards, self._files.outside, self._cache, self._sums_at)

    @property
    def location(self) -> str:
        """URL of the folder."""
        return self._files.location

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset`.

        If the file has a sums file, the blocks around the range are read and checked. Blocks that differ are fetched
        once more.

        Raises:
            StoreError: The blocks differ again.
        """
        return self.read_many([Range(name, offset, size)])[0]

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read the ranges, and the sums that are not in memory yet, all at the same time."""
        wanted = [self._blocks(one) for one in ranges]
        distinct = {blocks: None for blocks in wanted if blocks.size}
        sums = {blocks: self._begun(blocks) for blocks in distinct if name_sums_file(blocks.name) is not None}
        cached = {blocks for blocks in sums if self._is_cached(blocks)}
        found = self._files.fetched([blocks for blocks in distinct if blocks not in cached])
        for blocks, being_fetched in sums.items():
            if blocks in cached:
                found[blocks] = self._from_cache(blocks, being_fetched)
            else:
                found[blocks] = self._checked(blocks, found[blocks], being_fetched)
                self._keep(blocks, found[blocks])
        return [
            found[blocks][one.offset - blocks.offset :][: one.size] if one.size else b""
            for one, blocks in zip(ranges, wanted, strict=True)
        ]

    def unchecked(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset` without checking them against the sums."""
        self._check_range(name, offset, size)
        return self._files.part(Range(name, offset, size)) if size else b""

    def whole(self, name: str, most: int) -> bytes:
        """Return the contents of a file of at most `most` bytes."""
        return self._files.whole(name, most)

    def announce(self, ranges: Sequence[Range]) -> Announcement:
        """Ignore the announcement; `ReadAhead` is the store that fetches ahead."""
        return UNHEEDED

    def size(self, name: str) -> int:
        """Return the size of the file in bytes."""
        if name in self._shards and (known := self._shards[name].size_bytes) is not None:
            return known
        if name not in self._asked:
            self._asked[name] = self._files.ask_size(name)
        return self._asked[name]

    def names(self, prefix: str = "") -> list[str]:
        """Return the sorted names, with `prefix`, of the files in the folder and below it."""
        return self._files.names(prefix)

    def folders(self) -> list[str]:
        """Return the sorted names of the subfolders."""
        return self._files.folders()

    def of_split(self, shards: Mapping[str, ShardFile], *, outside: bool) -> RemoteStore:
        """Return the same store with these shards."""
        outside = outside or self._files.outside
        return RemoteStore(self.location, shards=shards, outside=outside, cache=self._cache, sums=self._sums_at)

    def _blocks(self, one: Range) -> Range:
        """Return the range to fetch for a range to read: whole blocks, if the file has sums."""
        name, offset, size = one
        total = self._check_range(name, offset, size)
        if not size or name_sums_file(name) is None:
            return one
        begin, end = find_blocks_around(offset, size, total)
        return Range(name, begin, end - begin)

    def _begun(self, blocks: Range) -> Sums:
        return self._sums.begun(blocks, self.size(blocks.name), threads())

    def _checked(self, blocks: Range, data: bytes, sums: Sums) -> bytes:
        """Check the blocks against their sums and return them. If they differ, both are fetched again."""
        where, wanted = self._files.where(blocks.name), self._sums.read(sums)
        if wanted is None:
            say_unchecked(self.location, name_sums_file(blocks.name) or SUMS)
            return data
        try:
            check_blocks(where, blocks.offset, data, wanted)
        except StoreError:
            self._sums.forget(sums)
            if self._cache is not None:
                for name, number in sums.pages:
                    self._cache.forget(self._name_page_in_cache(name, number * PAGE_BYTES))
            again = self._begun(blocks)
            data = self._files.part(blocks)
            check_blocks(where, blocks.offset, data, self._sums.read(again) or b"")
        return data

    def _is_cached(self, blocks: Range) -> bool:
        """Return True if the node's cache has any of these blocks."""
        if self._cache is None or blocks.name not in self._sha256:
            return False
        return self._cache.has_any(self._name_in_cache(blocks.name), blocks.offset, blocks.size)

    def is_near(self, one: Range) -> bool:
        """Return True if the node's cache has the range, so that it need not be fetched ahead."""
        name, offset, size = one
        if self._cache is None or name not in self._sha256 or not size:
            return False
        before = offset % BLOCK_BYTES
        return self._cache.has_all(self._name_in_cache(name), offset - before, before + size)

    def _from_cache(self, blocks: Range, sums: Sums) -> bytes:
        """Return the blocks through the node's cache. Missing ones are fetched."""
        wanted = self._sums.read(sums)
        if self._cache is None or wanted is None or len(wanted) != compute_sums_size(blocks.size):
            return self._checked(blocks, self._files.part(blocks), sums)

        def fetch(begin: int, size: int) -> bytes:
            lacking = Range(blocks.name, begin, size)
            return self._checked(lacking, self._files.part(lacking), self._begun(lacking))

        return self._cache.read(self._name_in_cache(blocks.name), blocks.offset, blocks.size, wanted, fetch)

    def _keep(self, blocks: Range, data: bytes) -> None:
        if self._cache is not None and blocks.name in self._sha256:
            self._cache.put(self._name_in_cache(blocks.name), blocks.offset, data)

    def _page(self, name: str, offset: int, size: int) -> bytes:
        """Return a page of a sums file, through the node's cache."""
        if self._sums_at is not None:
            return self._sums_at.unchecked(name, offset, max(min(size, self._sums_at.size(name) - offset), 0))
        if self._cache is None or name not in self._sha256:
            return self._files.read_available(name, offset, size)
        return self._cache.whole(
            self._name_page_in_cache(name, offset), lambda: self._files.read_available(name, offset, size)
        )

    def _name_in_cache(self, name: str) -> str:
        """Return a file's identity in the cache: its URL and sha256. Files without a sha256 in dataset.json are not
        cached.
        """
        return f"{self._files.where(name)} {self._sha256.get(name)}"

    def _name_page_in_cache(self, name: str, offset: int) -> str:
        return f"{self._name_in_cache(name)} {offset}"

    def _check_range(self, name: str, offset: int, size: int) -> int:
        """Return the size of the file. Raises StoreError for a range that it does not have."""
        where, total = self._files.where(name), self.size(name)
        if offset < 0 or size < 0:
            raise StoreError(f"{where}: {size} bytes at byte {offset} were requested; neither may be negative")
        if offset + size > total:
            raise StoreError(f"{where} ends at byte {total}, but bytes {offset} to {offset + size} were requested")
        return total


def _store_of(
    location: str, shards: dict[str, ShardFile], outside: bool, cache: BlockCache | None, sums: Store | None
) -> RemoteStore:
    return RemoteStore(location, shards=shards, outside=outside, cache=cache, sums=sums)
