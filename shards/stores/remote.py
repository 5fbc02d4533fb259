"""The store of a folder in an object store or on a web server. What is read is checked as in a local folder."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import GenericError

from ..errors import StoreError, UnlistedError
from .base import UNHEEDED, Announcement, Range, ShardFile
from .block_cache import BlockCache
from .block_sums import BLOCK_BYTES, blocks_around, check_blocks, sums_bytes, sums_name
from .client import bucket_client, errors_of, is_beyond_the_end, waited_for
from .complete import asked, contents, part, parts
from .location import place_of
from .remote_sums import PAGE_BYTES, RemoteSums, Sums

if TYPE_CHECKING:
    from obstore.store import ObjectStore

COALESCE_BYTES = 1 << 16
"""Ranges of a file with fewer bytes between them are fetched as one."""
_THREADS = 32


class RemoteStore:
    """The `Store` of a folder at a URL.

    shards: what dataset.json says of the shards; the sizes of other files are asked for once. outside: whether files
    may be outside of the folder, as foreign tars. cache: the node's, which keeps what has sums. A request is tried
    again as client.py says; then the error is an OutageError, which is no verdict on a sample. A pickled copy takes its
    credentials from its own environment.
    """

    def __init__(
        self,
        location: str,
        *,
        shards: Mapping[str, ShardFile] | None = None,
        outside: bool = False,
        cache: BlockCache | None = None,
    ) -> None:
        self._place = place_of(location)
        self._location = location.rstrip("/")
        self._outside = outside
        self._cache = cache
        self._shards = dict(shards or {})
        self._asked: dict[str, int] = {}
        self._opened: tuple[int, ObjectStore] | None = None
        self._sums = RemoteSums(self._page)
        known = self._shards.items() if cache else ()
        self._sha256 = {of: file.sha256 for name, file in known for of in (name, sums_name(name)) if of is not None}

    def __reduce__(
        self,
    ) -> tuple[Callable[..., RemoteStore], tuple[str, dict[str, ShardFile], bool, BlockCache | None]]:
        return _store_of, (self._location, self._shards, self._outside, self._cache)

    @property
    def location(self) -> str:
        """The URL of the folder."""
        return self._location

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset`.

        For a file with a sums file, the blocks around the range are read and checked; what differs is fetched once
        more. Raises StoreError if it differs again.
        """
        return self.read_many([Range(name, offset, size)])[0]

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read the ranges, and the sums that are not in memory yet, all at the same time."""
        wanted = [self._blocks(one) for one in ranges]
        distinct = {blocks: None for blocks in wanted if blocks.size}
        sums = {blocks: self._begun(blocks) for blocks in distinct if sums_name(blocks.name) is not None}
        cached = {blocks for blocks in sums if self._is_cached(blocks)}
        found = self._fetched([blocks for blocks in distinct if blocks not in cached])
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
        """Read exactly `size` bytes at `offset` as they are."""
        self._check_range(name, offset, size)
        return self._part(Range(name, offset, size)) if size else b""

    def whole(self, name: str, most: int) -> bytes:
        """The contents of a file of at most `most` bytes."""
        client, key, where = self._client(), self._key(name), self._where(name)
        with errors_of(where):
            data = waited_for(where, lambda: contents(client, key, most))
        if len(data) > most:
            raise StoreError(f"{where} cannot be read (has {self._size_now(name)} bytes, but at most {most} are legal)")
        return data

    def announce(self, ranges: Sequence[Range]) -> Announcement:
        """What is read is fetched when it is read; `ReadAhead` fetches it before."""
        return UNHEEDED

    def size(self, name: str) -> int:
        """The size of the file in bytes."""
        if name in self._shards and (known := self._shards[name].size_bytes) is not None:
            return known
        if name not in self._asked:
            self._asked[name] = self._size_now(name)
        return self._asked[name]

    def names(self, prefix: str = "") -> list[str]:
        """The sorted names, with `prefix`, of the files in the folder and below it."""
        client = self._listing_client()
        folder = f"{self._place.folder}/" if self._place.folder else ""
        parent = folder + prefix.rpartition("/")[0]
        with errors_of(self._location):
            found = waited_for(self._location, lambda: asked(lambda: _listed(client, parent.strip("/") or None)))
        names = [path.removeprefix(folder) for path in found]
        return sorted(name for name in names if name.startswith(prefix))

    def folders(self) -> list[str]:
        """The sorted names of the folders in the folder."""
        client = self._listing_client()
        with errors_of(self._location):
            prefix = self._place.folder or None
            found = waited_for(
                self._location, lambda: asked(lambda: obstore.list_with_delimiter(client, prefix=prefix))
            )
        return sorted(posixpath.basename(one.rstrip("/")) for one in found["common_prefixes"])

    def of_split(self, shards: Mapping[str, ShardFile], *, outside: bool) -> RemoteStore:
        """The same store with these shards."""
        return RemoteStore(self._location, shards=shards, outside=outside or self._outside, cache=self._cache)

    def _blocks(self, one: Range) -> Range:
        """The range that is fetched for a range that is read: whole blocks, if the file has sums."""
        name, offset, size = one
        total = self._check_range(name, offset, size)
        if not size or sums_name(name) is None:
            return one
        begin, end = blocks_around(offset, size, total)
        return Range(name, begin, end - begin)

    def _begun(self, blocks: Range) -> Sums:
        return self._sums.begun(blocks, self.size(blocks.name), _pool(os.getpid()))

    def _checked(self, blocks: Range, data: bytes, sums: Sums) -> bytes:
        """The blocks, compared with their sums; both are fetched again if they differ."""
        where, wanted = self._where(blocks.name), self._sums.read(sums)
        if wanted is None:
            return data
        try:
            check_blocks(where, blocks.offset, data, wanted)
        except StoreError:
            self._sums.forget(sums)
            if self._cache is not None:
                for name, number in sums.pages:
                    self._cache.forget(self._page_in_cache(name, number * PAGE_BYTES))
            again = self._begun(blocks)
            data = self._part(blocks)
            check_blocks(where, blocks.offset, data, self._sums.read(again) or b"")
        return data

    def _is_cached(self, blocks: Range) -> bool:
        """Whether the node's cache has any of these blocks."""
        if self._cache is None or blocks.name not in self._sha256:
            return False
        return self._cache.has_any(self._in_cache(blocks.name), blocks.offset, blocks.size)

    def is_near(self, one: Range) -> bool:
        """Whether the node's cache has the range, so that it need not be fetched ahead."""
        name, offset, size = one
        if self._cache is None or name not in self._sha256 or not size:
            return False
        before = offset % BLOCK_BYTES
        return self._cache.has_all(self._in_cache(name), offset - before, before + size)

    def _from_cache(self, blocks: Range, sums: Sums) -> bytes:
        """The blocks by the node's cache; what it lacks is fetched."""
        wanted = self._sums.read(sums)
        if self._cache is None or wanted is None or len(wanted) != sums_bytes(blocks.size):
            return self._checked(blocks, self._part(blocks), sums)

        def fetch(begin: int, size: int) -> bytes:
            lacking = Range(blocks.name, begin, size)
            return self._checked(lacking, self._part(lacking), self._begun(lacking))

        return self._cache.read(self._in_cache(blocks.name), blocks.offset, blocks.size, wanted, fetch)

    def _keep(self, blocks: Range, data: bytes) -> None:
        if self._cache is not None and blocks.name in self._sha256:
            self._cache.put(self._in_cache(blocks.name), blocks.offset, data)

    def _page(self, name: str, offset: int, size: int) -> bytes:
        """A page of a sums file, by the node's cache."""
        if self._cache is None or name not in self._sha256:
            return self._available(name, offset, size)
        return self._cache.whole(self._page_in_cache(name, offset), lambda: self._available(name, offset, size))

    def _in_cache(self, name: str) -> str:
        """What the contents of a file depend on. Nothing is kept of a file of which dataset.json says no sha256."""
        return f"{self._where(name)} {self._sha256.get(name)}"

    def _page_in_cache(self, name: str, offset: int) -> str:
        return f"{self._in_cache(name)} {offset}"

    def _fetched(self, ranges: Sequence[Range]) -> dict[Range, bytes]:
        """Ranges of any files: the first file's by this thread, those of others at the same time."""
        files: dict[str, list[Range]] = {}
        for one in ranges:
            files.setdefault(one.name, []).append(one)
        here, *others = list(files.values()) or [[]]
        later = [_pool(os.getpid()).submit(self._parts, spans) for spans in others]
        found = self._parts(here)
        for one_file in later:
            found |= one_file.result()
        return found

    def _parts(self, spans: Sequence[Range]) -> dict[Range, bytes]:
        """Ranges of one file, fetched at the same time."""
        if len(spans) < 2:
            return {one: self._part(one) for one in spans}
        name, end = spans[0].name, max(one.offset + one.size for one in spans)
        starts, lengths = [one.offset for one in spans], [one.size for one in spans]
        client, key = self._client(), self._key(name)
        with self._within_file(name, end):
            found = waited_for(self._where(name), lambda: parts(client, key, starts, lengths, COALESCE_BYTES))
        return {one: self._of_length(one, data) for one, data in zip(spans, found, strict=True)}

    def _part(self, one: Range) -> bytes:
        """One range, fetched by this thread."""
        client, key = self._client(), self._key(one.name)
        with self._within_file(one.name, one.offset + one.size):
            data = waited_for(self._where(one.name), lambda: part(client, key, one.offset, one.size))
        return self._of_length(one, data)

    def _available(self, name: str, offset: int, size: int) -> bytes:
        """The bytes of a range that a file has."""
        client, key = self._client(), self._key(name)
        with errors_of(self._where(name)):
            try:
                return part(client, key, offset, size)
            except GenericError as error:
                if not is_beyond_the_end(error) or self._size_now(name) > offset:
                    raise
                return b""

    @contextmanager
    def _within_file(self, name: str, end: int) -> Iterator[None]:
        """Raises StoreError where the block fails because the file ends before byte `end`, else as `errors_of` does."""
        where = self._where(name)
        with errors_of(where):
            try:
                yield
            except GenericError as error:
                if not is_beyond_the_end(error) or (size := self._size_now(name)) >= end:
                    raise
                raise StoreError(f"{where} ends at byte {size}, but bytes up to {end} were requested") from None

    def _of_length(self, one: Range, data: bytes) -> bytes:
        if len(data) != one.size:
            raise StoreError(
                f"{self._where(one.name)} ends at byte {one.offset + len(data)}, but bytes {one.offset} to "
                f"{one.offset + one.size} were requested"
            )
        return data

    def _check_range(self, name: str, offset: int, size: int) -> int:
        """The size of the file. Raises StoreError for bytes that it does not have."""
        where, total = self._where(name), self.size(name)
        if offset < 0 or size < 0:
            raise StoreError(f"{where}: {size} bytes at byte {offset} were requested; neither may be negative")
        if offset + size > total:
            raise StoreError(f"{where} ends at byte {total}, but bytes {offset} to {offset + size} were requested")
        return total

    def _size_now(self, name: str) -> int:
        client, key = self._client(), self._key(name)
        with errors_of(self._where(name)):
            return int(waited_for(self._where(name), lambda: asked(lambda: obstore.head(client, key)))["size"])

    def _client(self) -> ObjectStore:
        process = os.getpid()
        if self._opened is None or self._opened[0] != process:
            self._opened = process, bucket_client(self._place)
        return self._opened[1]

    def _listing_client(self) -> ObjectStore:
        if self._place.scheme in ("http", "hf"):
            raise UnlistedError(f"{self._location}: a web server does not list files; dataset.json names a split's")
        return self._client()

    def _where(self, name: str) -> str:
        return f"{self._location}/{name}"

    def _key(self, name: str) -> str:
        """The name of a file in the bucket. Raises StoreError if it leads out of the folder or no file can have it."""
        folder = self._place.folder
        key = posixpath.normpath(posixpath.join(folder, name))
        inside = key.startswith(f"{folder}/") if folder else not key.startswith("../")
        if name.startswith("/") or key.startswith("../") or not (inside or self._outside):
            raise StoreError(f"{self._where(name)} leads out of {self._location}")
        if any(ord(character) < 32 or ord(character) == 127 for character in name) or not name.isprintable():
            raise StoreError(f"{self._location}: no file can have the name {name!r}")
        return key


def _listed(client: ObjectStore, prefix: str | None) -> list[str]:
    return [one["path"] for page in obstore.list(client, prefix=prefix) for one in page]


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """The threads that fetch what a read needs besides the range that its own thread fetches."""
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="maskstream-fetch")


def _store_of(location: str, shards: dict[str, ShardFile], outside: bool, cache: BlockCache | None) -> RemoteStore:
    return RemoteStore(location, shards=shards, outside=outside, cache=cache)
