"""List raw data at a URL, and fetch whole files."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import obstore
import xxhash
from obstore.exceptions import GenericError, NotSupportedError

from maskstream.shards.errors import DatasetError, MissingFileError, OutageError
from maskstream.shards.stores.client import ASK_S, BUCKETS, FILE_S, open_bucket_client, store_errors
from maskstream.shards.stores.remote_files import IncompleteError, asked, chunks, contents, has_given_up
from maskstream.shards.stores.url import StorePlace, parse_place

from .file_state import FileState, set_age

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

FILE_LIST = "files.txt"
"""List of the files on a web server, which cannot be listed otherwise: one relative path per line."""
THREADS = 32
_NS = 10**9
_MOST_LISTED_BYTES = 1 << 30


class RawFile(NamedTuple):
    """A file at a URL.

    Attributes:
        name: Path below the URL.
        size_bytes: Size in bytes.
        mtime_ns: Modification time in ns, to the second as in HTTP.
    """

    name: str
    size_bytes: int
    mtime_ns: int


def listed(url: str) -> Iterator[RawFile]:
    """List the files below a URL.

    Raises:
        OutageError: The files cannot be listed.
        DatasetError: A name cannot be a file name.
    """
    place = parse_place(url)
    yield from _open_bucket_tree(url, place) if place.scheme in BUCKETS else _open_server_tree(url, place)


def _check_name(url: str, name: str) -> str:
    if {"", ".", ".."} & set(name.split("/")) or "\0" in name:
        raise DatasetError(f"{url} lists {name!r}, which is not a valid file name; rename it")
    return name


def fetched(url: str, name: str, to: Path | None) -> FileState:
    """Fetch a file to the path `to`, with its modification time, or only read it. Returns its state.

    Raises:
        OutageError: The file cannot be read.
        OSError: The file cannot be written.
    """
    place = parse_place(url)
    client, where = open_bucket_client(place, FILE_S), f"{url.rstrip('/')}/{name}"
    with _reading(where):
        state = asked(lambda: _stream_state(client, _key(place, name), to))
    if to is not None:
        set_age(to, state.mtime_ns)
    return state


def _stream_state(client: ObjectStore, key: str, to: Path | None) -> FileState:
    """Read a file once and return its state.

    It is requested as a range, because only then does the response include the size of the file as well as its own.
    """
    try:
        found = obstore.get(client, key, options={"range": {"offset": 0}})
    except (GenericError, NotSupportedError) as error:  # responses vary by server
        given_up = isinstance(error, GenericError) and has_given_up(error)
        if given_up or (meta := obstore.head(client, key))["size"]:
            raise
        if to is not None:
            to.write_bytes(b"")
        return FileState(size_bytes=0, mtime_ns=_read_age(meta), xxh3_64=xxhash.xxh3_64_hexdigest(b""))
    digest, size = xxhash.xxh3_64(), 0
    with nullcontext() if to is None else to.open("wb") as file:
        for data in chunks(found, key):
            digest.update(data)
            size += len(data)
            if file is not None:
                file.write(data)
    if not size == found.range[1] == found.meta["size"]:
        raise IncompleteError(f"{size} of {found.meta['size']} bytes of {key} arrived")
    return FileState(size_bytes=size, mtime_ns=_read_age(found.meta), xxh3_64=digest.hexdigest())


def _open_bucket_tree(url: str, place: StorePlace) -> Iterator[RawFile]:
    folder = f"{place.folder}/" if place.folder else ""
    client = open_bucket_client(place, ASK_S)
    with _reading(url):
        for page in obstore.list(client, prefix=place.folder or None, chunk_size=1000):
            yield from (
                _file(_check_name(url, meta["path"].removeprefix(folder)), meta)
                for meta in page
                if not meta["path"].endswith("/")
            )


def _open_server_tree(url: str, place: StorePlace) -> Iterator[RawFile]:
    asking = open_bucket_client(place, ASK_S)

    def looked_up(name: str) -> RawFile:
        with _reading(f"{url}/{name}"):
            return _file(name, obstore.head(asking, _key(place, name)))

    try:
        with store_errors(f"{url}/{FILE_LIST}"):
            data = contents(open_bucket_client(place, FILE_S), _key(place, FILE_LIST), _MOST_LISTED_BYTES)
    except MissingFileError as error:
        raise DatasetError(
            f"{url} is on a web server, which cannot list its files; put a list there: find . -type f | "
            f"sed 's|^./||' > {FILE_LIST}"
        ) from error
    if len(data) > _MOST_LISTED_BYTES:
        raise DatasetError(f"{url}/{FILE_LIST} has more than {_MOST_LISTED_BYTES} bytes; is it a list?")
    names = data.decode("utf-8", "replace").splitlines()
    wanted = sorted({_check_name(url, name) for name in names if name and name != FILE_LIST})
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(looked_up, wanted)


def _key(place: StorePlace, name: str) -> str:
    return f"{place.folder}/{name}" if place.folder else name


def _file(name: str, meta: ObjectMeta) -> RawFile:
    return RawFile(name, meta["size"], _read_age(meta))


def _read_age(meta: ObjectMeta) -> int:
    return int(meta["last_modified"].timestamp()) * _NS


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turn read errors into OutageError, also for a missing file, as for local files."""
    try:
        with store_errors(where):
            yield
    except MissingFileError as error:
        raise OutageError(f"{error}, although it was listed") from error
