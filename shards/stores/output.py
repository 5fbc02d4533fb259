"""The output: a folder that a split is written to, on a disk or in an object store.

In a local folder, files are published by a rename, and a lock excludes other writers.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar, Union

from maskstream.shards.errors import StoreError
from maskstream.shards.reach import is_inside

from .local import LocalStore
from .local_files import (
    create,
    joint_writer,
    make_error,
    publishing,
    read_regular,
    remove_leftovers,
    sole_writer,
    stream_regular,
    sync_folder,
)
from .url import is_url

if TYPE_CHECKING:
    from .remote_output import RemoteOutput

T = TypeVar("T")


class LocalOutput:
    """The `Output` to a local folder."""

    is_locked = True

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def location(self) -> str:
        """Path of the folder, for messages."""
        return str(self.folder)

    @property
    def store(self) -> LocalStore:
        """A store that reads the same folder."""
        return LocalStore(self.folder)

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Open a stream that writes the file, which appears when the block ends."""
        self._make_parent(name)
        with publishing(self._at(name)) as stream:
            yield stream

    def publish(self, name: str, data: bytes) -> None:
        """Write a file, replacing an earlier one."""
        with self.writing(name) as stream:
            stream.write(data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless it exists. Returns True if it was written."""
        self._make_parent(name)
        return create(self._at(name), data)

    def remove(self, names: Iterable[str]) -> None:
        """Delete files, and subfolders that become empty."""
        parents = set[PurePosixPath]()
        for name in names:
            self._at(name).unlink(missing_ok=True)
            parents.update(PurePosixPath(name).parents[:-1])
        for parent in sorted(parents, key=lambda path: len(path.parts), reverse=True):
            with suppress(OSError):  # it holds other files, or is gone
                (self.folder / parent).rmdir()
        if self.folder.is_dir():
            sync_folder(self.folder)

    def names(self, prefix: str = "") -> list[str]:
        """Return the sorted names that begin with `prefix`, in the folder and below it."""
        return self.store.names(prefix)

    def sizes(self) -> LocalOutput:
        """Return the output itself, because a disk returns sizes at once."""
        return self

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes; None if there is no regular file of this name."""
        found = self._of_file(name, Path.stat)
        return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else None

    def whole(self, name: str, most: int) -> bytes | None:
        """Return the contents of a file; None if it does not exist. Raises StoreError for more than `most` bytes."""
        return self._of_file(name, lambda path: read_regular(path, most))

    def head(self, name: str, most: int) -> bytes | None:
        """Return the first bytes of a file, at most `most`; None if it does not exist."""

        def read(path: Path) -> bytes:
            with stream_regular(path) as file:
                return file.read(most)

        return self._of_file(name, read)

    def _of_file(self, name: str, read: Callable[[Path], T]) -> T | None:
        """Return the result of `read` for a file; None if it does not exist."""
        path = self.folder / name
        try:
            return read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise make_error(path, error) from error

    def make(self) -> None:
        """Create the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def sole_writer(self) -> AbstractContextManager[None]:
        """Lock the folder for the block, and remove the leftovers of killed processes at its end."""
        return self._locked()

    def joint_writer(self) -> AbstractContextManager[None]:
        """Lock the folder for the block, shared with other joint writers."""
        return joint_writer(self.folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with sole_writer(self.folder):
            try:
                yield
            finally:
                self.remove_leftovers()

    def remove_leftovers(self, folder: str = "") -> None:
        """Delete the temporary files of killed writers in `folder`."""
        remove_leftovers(self.folder / folder)

    def _at(self, name: str) -> Path:
        """Return the path of a file to be written or deleted. Raises StoreError for a name that leads out of the
        folder.
        """
        if not is_inside(name):
            raise StoreError(f"{name!r} leads outside {self.folder}, where nothing may be written or deleted")
        return self.folder / name

    def _make_parent(self, name: str) -> None:
        """Create the folder of a file within this one, which must exist: if it is gone, it is not created again."""
        parent = self._at(name).parent
        if parent != self.folder and not parent.is_dir():
            parent.mkdir(exist_ok=True)
            sync_folder(self.folder)


Location = str | Path
"""A local path, or the URL of a folder or file in an object store."""


class Sizes(Protocol):
    """The sizes of the files of an output."""

    @property
    def location(self) -> str:
        """Location of the folder, for messages."""
        ...

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes; None if it does not exist."""
        ...


Output = Union[LocalOutput, "RemoteOutput"]
"""Writes the files of one split. Every file appears whole or not at all. It is thread-safe and can be pickled.

A name is a path relative to the folder, with `/` between its parts. `is_locked` is True if `sole_writer` can exclude
other writers, with BusyError if another run writes. Raises StoreError if a file cannot be written or read, and
OutageError if the store does not answer.
"""


def open_output(where: Location | Output) -> Output:
    """Return the output at a location. An output is returned unchanged.

    Raises:
        ValueError: The URL cannot be written to.
    """
    if not isinstance(where, str | Path):
        return where
    if not is_url(where):
        return LocalOutput(where)
    from .remote_output import RemoteOutput  # imported here because a local folder does not need the clients of stores

    return RemoteOutput(str(where))


def within(folder: Location, name: str) -> Location:
    """Return the location of a file or folder `name` in `folder`."""
    return f"{str(folder).rstrip('/')}/{name}" if is_url(folder) else Path(folder) / name


def split_folder_and_name(location: Location) -> tuple[Location, str]:
    """Return the folder of a file, and the file's name in it."""
    if is_url(location):
        folder, _, name = str(location).rpartition("/")
        return folder, name
    return Path(location).parent, Path(location).name


def get_last_parts(location: Location, count: int) -> str:
    """Return the last `count` parts of a location, joined with `/`."""
    return "/".join(PurePosixPath(location).parts[-count:])
