"""Reads the files of a folder in an object store or on a web server, without checks or caching.

Answers are guaranteed to be complete. A client repeats most failed requests, but not one that may have changed
something and whose answer was truncated. It accepts an answer whose Content-Length is too small, and if that is too
large it requests bytes that the file does not have. Here the bytes of an answer are counted, and a request with an
inconsistent answer is repeated. So a network error never makes a file appear shorter than it is. A server that sends
almost nothing per second is abandoned like one that sends nothing.
"""

from __future__ import annotations

import os
import posixpath
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import GenericError

from maskstream.shards.errors import StoreError, UnlistedError

from . import client as clients
from .base import Range
from .client import ASK_S, is_beyond_the_end, open_bucket_client, store_errors, waited_for
from .url import parse_place

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta
    from obstore.store import ObjectStore

T = TypeVar("T")

COALESCE_BYTES = 1 << 16
"""Ranges of a file with fewer bytes between them are fetched as one."""
_THREADS = 32
REPEATS = 6
"""Most repetitions of a request whose answer is incomplete."""
_PAUSE_S = 0.05
_RETRIES = re.compile(r"after (\d+) retries, max_retries: (\d+)")
_STATUS = re.compile(r"status code: (?!416)\d")


class RemoteFiles:
    """Files of the folder at a URL.

    outside: Whether files may be outside of the folder, like foreign tars. Requests are retried as described in
    client.py; then they raise OutageError. A pickled copy takes its credentials from its own environment.
    """

    def __init__(self, location: str, *, outside: bool = False) -> None:
        self._place = parse_place(location)
        self.location = location.rstrip("/")
        self.outside = outside
        self._opened: tuple[int, ObjectStore, ObjectStore] | None = None

    def whole(self, name: str, most: int) -> bytes:
        """Return the contents of a file of at most `most` bytes."""
        client, key, where = self._client(), self._key(name), self.where(name)
        with store_errors(where):
            data = waited_for(where, lambda: contents(client, key, most))
        if len(data) > most:
            raise StoreError(
                f"{where} cannot be read (has {self.ask_size(name)} bytes, but at most {most} are allowed)"
            )
        return data

    def names(self, prefix: str = "") -> list[str]:
        """Return the sorted names, with `prefix`, of the files in the folder and below it."""
        client = self._open_listing_client()
        folder = f"{self._place.folder}/" if self._place.folder else ""
        parent = folder + prefix.rpartition("/")[0]
        with store_errors(self.location):
            found = waited_for(self.location, lambda: asked(lambda: _list_names(client, parent.strip("/") or None)))
        names = [path.removeprefix(folder) for path in found]
        return sorted(name for name in names if name.startswith(prefix))

    def folders(self) -> list[str]:
        """Return the sorted names of the subfolders."""
        client = self._open_listing_client()
        with store_errors(self.location):
            prefix = self._place.folder or None
            found = waited_for(self.location, lambda: asked(lambda: obstore.list_with_delimiter(client, prefix=prefix)))
        return sorted(posixpath.basename(one.rstrip("/")) for one in found["common_prefixes"])

    def fetched(self, ranges: Sequence[Range]) -> dict[Range, bytes]:
        """Fetch ranges of any files: ranges of the first file in this thread, all others concurrently."""
        files: dict[str, list[Range]] = {}
        for one in ranges:
            files.setdefault(one.name, []).append(one)
        here, *others = list(files.values()) or [[]]
        later = [threads().submit(self._parts, spans) for spans in others]
        found = self._parts(here)
        for one_file in later:
            found |= one_file.result()
        return found

    def _parts(self, spans: Sequence[Range]) -> dict[Range, bytes]:
        """Fetch ranges of one file at the same time."""
        if len(spans) < 2:
            return {one: self.part(one) for one in spans}
        name, end = spans[0].name, max(one.offset + one.size for one in spans)
        starts, lengths = [one.offset for one in spans], [one.size for one in spans]
        client, asking, key = self._client(), self._open_asking_client(), self._key(name)
        with self._check_within_file(name, end):
            found = waited_for(self.where(name), lambda: parts(client, asking, key, starts, lengths, COALESCE_BYTES))
        return {one: self._check_length(one, data) for one, data in zip(spans, found, strict=True)}

    def part(self, one: Range) -> bytes:
        """Fetch one range in this thread."""
        client, key = self._client(), self._key(one.name)
        with self._check_within_file(one.name, one.offset + one.size):
            data = waited_for(self.where(one.name), lambda: part(client, key, one.offset, one.size))
        return self._check_length(one, data)

    def read_available(self, name: str, offset: int, size: int) -> bytes:
        """Return the bytes of a range that a file has."""
        client, key = self._client(), self._key(name)
        with store_errors(self.where(name)):
            try:
                return part(client, key, offset, size)
            except GenericError as error:
                if not is_beyond_the_end(error) or self.ask_size(name) > offset:
                    raise
                return b""

    @contextmanager
    def _check_within_file(self, name: str, end: int) -> Iterator[None]:
        """Raise StoreError if the block fails because the file ends before byte `end`; other errors as in
        `store_errors`.
        """
        where = self.where(name)
        with store_errors(where):
            try:
                yield
            except GenericError as error:
                if not is_beyond_the_end(error) or (size := self.ask_size(name)) >= end:
                    raise
                raise StoreError(f"{where} ends at byte {size}, but bytes up to {end} were requested") from None

    def _check_length(self, one: Range, data: bytes) -> bytes:
        if len(data) != one.size:
            raise StoreError(
                f"{self.where(one.name)} ends at byte {one.offset + len(data)}, but bytes {one.offset} to "
                f"{one.offset + one.size} were requested"
            )
        return data

    def ask_size(self, name: str) -> int:
        """Request the size of a file in bytes."""
        return self._meta(name)["size"]

    def state(self, name: str) -> tuple[int, int]:
        """Return size in bytes and modification time of a file, in ns since 1970 (HTTP reports whole seconds)."""
        meta = self._meta(name)
        return meta["size"], int(meta["last_modified"].timestamp()) * 10**9

    def _meta(self, name: str) -> ObjectMeta:
        client, key = self._open_asking_client(), self._key(name)
        with store_errors(self.where(name)):
            return waited_for(self.where(name), lambda: asked(lambda: obstore.head(client, key)))

    def _client(self) -> ObjectStore:
        """Return the client for ranges."""
        return self._clients()[1]

    def _open_asking_client(self) -> ObjectStore:
        """Return the client for requests that a server answers at once."""
        return self._clients()[2]

    def _clients(self) -> tuple[int, ObjectStore, ObjectStore]:
        process = os.getpid()
        if self._opened is None or self._opened[0] != process:
            self._opened = process, open_bucket_client(self._place), open_bucket_client(self._place, ASK_S)
        return self._opened

    def _open_listing_client(self) -> ObjectStore:
        if self._place.scheme in ("http", "hf"):
            raise UnlistedError(
                f"{self.location}: a web server cannot list files; those of a split are listed in its dataset.json"
            )
        return self._open_asking_client()

    def where(self, name: str) -> str:
        """Return the URL of a file, for messages."""
        return f"{self.location}/{name}"

    def _key(self, name: str) -> str:
        """Return the name of a file in the bucket. Raises StoreError if it leads out of the folder or is impossible."""
        folder = self._place.folder
        key = posixpath.normpath(posixpath.join(folder, name))
        inside = key.startswith(f"{folder}/") if folder else not key.startswith("../")
        if name.startswith("/") or key.startswith("../") or not (inside or self.outside):
            raise StoreError(f"{self.where(name)} leads outside {self.location}")
        if any(ord(character) < 32 or ord(character) == 127 for character in name) or not name.isprintable():
            raise StoreError(f"{self.location}: {name!r} is not a valid file name")
        return key


def _list_names(client: ObjectStore, prefix: str | None) -> list[str]:
    return [one["path"] for page in obstore.list(client, prefix=prefix) for one in page]


def threads() -> ThreadPoolExecutor:
    """Return the threads that fetch everything a read needs besides the range that its own thread fetches."""
    return _pool(os.getpid())


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="maskstream-fetch")


class IncompleteError(GenericError):
    """The answer has fewer bytes than announced."""


class SlowError(GenericError):
    """The server sends data below the minimum rate."""


class BeyondTheEndError(GenericError):
    """The file ends before the range."""


def part(client: ObjectStore, key: str, start: int, length: int) -> bytes:
    """Return a range of a file; fewer bytes only if the file ends within it. Raises BeyondTheEndError if it ends
    before.
    """
    return asked(lambda: _range(client, key, start, start + length))


def parts(
    client: ObjectStore, asking: ObjectStore, key: str, starts: Sequence[int], lengths: Sequence[int], coalesce: int
) -> list[bytes]:
    """Return ranges of a file; fewer bytes only if the file ends before.

    They are fetched at the same time by the client `asking`. If that fails, `client` fetches them one by one.
    """
    try:
        found = obstore.get_ranges(asking, key, starts=starts, lengths=lengths, coalesce=coalesce)
        data = [bytes(one) for one in found]
    except GenericError as error:
        if has_given_up(error):
            raise
    else:
        if [len(one) for one in data] == list(lengths):
            return data
    return [part(client, key, start, length) for start, length in zip(starts, lengths, strict=True)]


def contents(client: ObjectStore, key: str, most: int) -> bytes:
    """Return the contents of a file; the first `most` + 1 bytes if it has more."""
    try:
        return part(client, key, 0, most + 1)
    except BeyondTheEndError:
        return b""


def chunks(found: GetResult, key: str) -> Iterator[memoryview]:
    """Yield the bytes of an answer as they arrive. Raises SlowError if the rate over READ_S seconds of waiting is too
    low.
    """
    came, waited_s, begun = 0, 0.0, time.monotonic()
    for chunk in found.stream(min_chunk_size=1):
        data = memoryview(chunk)
        came, waited_s = came + len(data), waited_s + time.monotonic() - begun
        if waited_s >= clients.READ_S:
            if came < clients.LEAST_BYTES_S * waited_s:
                raise SlowError(
                    f"{came} bytes of {key} arrived in {waited_s:.0f} s; a server must send at least "
                    f"{clients.LEAST_BYTES_S} bytes per second"
                )
            came, waited_s = 0, 0.0
        yield data
        begun = time.monotonic()


def asked(request: Callable[[], T]) -> T:
    """Return the result of a request, which is repeated while its answer is inconsistent."""
    begun = time.monotonic()
    for number in range(REPEATS + 1):
        try:
            return request()
        except BeyondTheEndError:
            raise
        except GenericError as error:
            if number == REPEATS or has_given_up(error) or time.monotonic() - begun > clients.RETRY_S:
                raise
            time.sleep(_PAUSE_S * 2**number)
    raise AssertionError("the last attempt raises")


def has_given_up(error: GenericError) -> bool:
    """Return True if repeating is useless: the client has used all of its retries, or the server reports an error
    status.
    """
    found = _RETRIES.search(str(error))
    return (found is not None and int(found[1]) >= int(found[2])) or _STATUS.search(str(error)) is not None


def _range(client: ObjectStore, key: str, start: int, end: int) -> bytes:
    try:
        found = obstore.get(client, key, options={"range": (start, end)})
    except GenericError as error:
        if is_beyond_the_end(error) and obstore.head(client, key)["size"] <= start:
            raise BeyondTheEndError(str(error)) from error
        raise
    first, last = found.range
    data = b"".join(chunks(found, key))
    if first != start or len(data) != last - first or last < min(end, found.meta["size"]):
        raise IncompleteError(f"bytes {start} to {end} of {key} were requested, but {len(data)} bytes arrived")
    return data
