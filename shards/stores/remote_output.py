"""The output to a folder in an object store. An object appears as a whole, once its last byte has been sent.

There is no lock: two runs of the same job write the same bytes, and `create` decides which of them writes first. A file
that is written as a stream is stored in an unnamed local temporary file before it is sent. So no whole file is in
memory, and a killed process leaves nothing on the disk. Only a kill while a file of more than `ONE_PUT_BYTES` is being
sent leaves an unfinished upload. Readers do not see it; our clients cannot list it, so the bucket's lifecycle rules
must delete it.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError

from maskstream.shards.errors import MissingFileError, StoreError

from .base import Store
from .client import BUCKETS, READ_S, make_client, store_errors, waited_for
from .local_files import check_space_for
from .open import open_store
from .remote_files import asked, contents
from .url import parse_place

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")

ONE_PUT_BYTES = 32 << 20
"""Largest file sent in one request; larger ones are sent in parts."""
_PART_BYTES = 16 << 20
_PARTS_AT_ONCE = 4
_SENT_S = 300.0
"""Seconds that sending a part may take, because a store does not answer in the meantime."""
PROBE = ".records/probe"
"""File with which a store is probed. It is deleted at once."""
_PROBES = 4
"""Number of attempts to create the file. A file that another run has just deleted may be created twice."""
_THERE = (AlreadyExistsError, PreconditionError)

_conditional: dict[str, bool] = {}
"""Whether a probed store supports conditional creation, by location."""
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Listing:
    """The folder's location, and the size of each file by its name, at one point in time."""

    location: str
    by_name: Mapping[str, int]

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes; None if it did not exist."""
        return self.by_name.get(name)


class RemoteOutput:
    """The `Output` to the folder at a URL, such as `s3://bucket/folder`."""

    is_locked = False

    def __init__(self, location: str) -> None:
        self._location = location.rstrip("/")
        if parse_place(location).scheme not in BUCKETS:
            legal = ", ".join(f"{scheme}://BUCKET/FOLDER" for scheme in BUCKETS)
            raise ValueError(f"{location} can be read but not written to; expected local paths and {legal}")

    def __reduce__(self) -> tuple[Callable[..., RemoteOutput], tuple[str]]:
        return RemoteOutput, (self._location,)

    @property
    def location(self) -> str:
        """URL of the folder."""
        return self._location

    @property
    def store(self) -> Store:
        """Store that reads the same folder."""
        return open_store(self._location)

    def _asked(self, name: str, request: Callable[[ObjectStore], T], read_timeout_s: float = READ_S) -> T:
        """Return the result of a request, which is repeated if its answer is malformed."""
        return self._once(name, lambda client: asked(lambda: request(client)), read_timeout_s)

    def _once(self, name: str, request: Callable[[ObjectStore], T], read_timeout_s: float = READ_S) -> T:
        client = make_client(self._location, read_timeout_s=read_timeout_s)
        where = f"{self._location}/{name}" if name else self._location
        with store_errors(where):
            return waited_for(where, lambda: request(client))

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Open a stream that writes the file, which is sent when the block ends."""
        folder = find_temporary_folder()
        with check_space_for(folder), tempfile.TemporaryFile(dir=folder) as file:
            yield file
            self._asked(name, lambda client: _send(client, name, file), _SENT_S)

    def publish(self, name: str, data: bytes) -> None:
        """Write a file, which replaces an earlier one."""
        if len(data) > ONE_PUT_BYTES:
            with self.writing(name) as stream:
                stream.write(data)
            return
        self._asked(name, lambda client: obstore.put(client, name, data, use_multipart=False), _SENT_S)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file if no file has this name; return whether it was written.

        The store decides, if it can; otherwise existence is checked before writing.
        """
        if self.size(name) is not None:
            return False
        if not self._is_conditional():
            self.publish(name, data)
            return True
        if self._asked(name, lambda client: _create_if_new(client, name, data), _SENT_S):
            return True
        # a request that was repeated because its response was lost finds its own data
        return self.head(name, len(data) + 1) == data

    def _is_conditional(self) -> bool:
        """Return whether the store refuses to overwrite on creation. Some stores return an error, some overwrite."""
        with _lock:
            if self._location not in _conditional:
                _conditional[self._location] = self._probe_server()
            return _conditional[self._location]

    def _probe_server(self) -> bool:
        created: bool | None = True
        for _ in range(_PROBES):
            if created:
                created = self._asked(PROBE, lambda client: _create_if_new(client, PROBE, b""))
        self.remove([PROBE])
        return created is False

    def remove(self, names: Iterable[str]) -> None:
        """Delete files; those that do not exist are ignored."""
        todo = list(names)
        if todo:
            self._asked(todo[0], lambda client: _delete(client, todo))

    def names(self, prefix: str = "") -> list[str]:
        """Return the sorted names that begin with `prefix`, in the folder and below it."""
        return sorted(name for name in self._listed() if name.startswith(prefix))

    def sizes(self) -> Listing:
        """Return the sizes of all files, from one listing."""
        return Listing(self._location, self._listed())

    def _listed(self) -> dict[str, int]:
        return self._asked(
            "", lambda client: {one["path"]: one["size"] for page in obstore.list(client) for one in page}
        )

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes; None if there is none."""
        try:
            return self._asked(name, lambda client: obstore.head(client, name)["size"])
        except MissingFileError:
            return None

    def whole(self, name: str, most: int) -> bytes | None:
        """Return the contents of a file; None if there is none. Raises StoreError for more than `most` bytes."""
        try:
            data = self._once(name, lambda client: contents(client, name, most))
        except MissingFileError:
            return None
        if len(data) > most:
            raise StoreError(f"{self._location}/{name} has {self.size(name)} bytes, but at most {most} are allowed")
        return data

    def head(self, name: str, most: int) -> bytes | None:
        """Return the first bytes of a file, at most `most`; None if it is missing."""
        try:
            return self._once(name, lambda client: contents(client, name, most - 1))
        except MissingFileError:
            return None

    def make(self) -> None:
        """Do nothing: a folder exists where files are."""

    def sole_writer(self) -> AbstractContextManager[None]:
        """Return a context that locks nothing: object stores have no locks."""
        return nullcontext()

    def joint_writer(self) -> AbstractContextManager[None]:
        """Return a context that locks nothing, like `sole_writer`."""
        return nullcontext()

    def remove_leftovers(self, folder: str = "") -> None:
        """Do nothing: unfinished files have no name."""


def _send(client: ObjectStore, name: str, file: BinaryIO) -> None:
    """Send the contents of a file, whole or in parts."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    many = size > ONE_PUT_BYTES
    obstore.put(client, name, file, use_multipart=many, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)


def _create_if_new(client: ObjectStore, name: str, data: bytes) -> bool | None:
    """Return whether the store created a file that did not exist; None if it does not support the condition."""
    try:
        obstore.put(client, name, data, mode="create", use_multipart=False)
    except _THERE:
        return False
    except (NotSupportedError, NotImplementedError):
        return None
    except BaseError as error:
        if "status code: 501" in str(error):
            return None
        raise
    return True


def _delete(client: ObjectStore, names: list[str]) -> None:
    try:
        obstore.delete(client, names)
    except FileNotFoundError:
        for name in names:
            with suppress(FileNotFoundError):
                obstore.delete(client, name)


def find_temporary_folder() -> Path:
    """Return where a file is stored before it is sent: TMPDIR, else /var/tmp, which is on disk even if /tmp is in
    memory.
    """
    chosen = os.environ.get("TMPDIR")
    disk = Path("/var/tmp")
    return Path(chosen) if chosen else disk if os.access(disk, os.W_OK) else Path(tempfile.gettempdir())
