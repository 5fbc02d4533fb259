"""The output: a folder that a split is written to, on a disk or in an object store.

In a local one, files are published by a rename, and a lock keeps other writers out.
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
    """The `Output` to a folder."""

    is_locked = True

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def location(self) -> str:
        """The folder, for messages."""
        return str(self.folder)

    @property
    def store(self) -> LocalStore:
        """Reads the same folder."""
        return LocalStore(self.folder)

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A stream that writes the file, which appears when the block ends."""
        self._make_parent(name)
        with publishing(self._at(name)) as stream:
            yield stream

    def publish(self, name: str, data: bytes) -> None:
        """Write a file, which replaces an earlier one."""
        with self.writing(name) as stream:
            stream.write(data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file if there is none of this name; returns whether it was written."""
        self._make_parent(name)
        return create(self._at(name), data)

    def remove(self, names: Iterable[str]) -> None:
        """Delete files, and the folders within this one that are empty then."""
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
        """The sorted names that begin with `prefix`, in the folder and below it."""
        return self.store.names(prefix)

    def sizes(self) -> LocalOutput:
        """The output itself: a disk tells a size at once."""
        return self

    def size(self, name: str) -> int | None:
        """The size of a file in bytes; None if there is no regular file of this name."""
        found = self._of_file(name, Path.stat)
        return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else None

    def whole(self, name: str, most: int) -> bytes | None:
        """The contents of a file; None if there is none. Raises StoreError for more than `most` bytes."""
        return self._of_file(name, lambda path: read_regular(path, most))

    def head(self, name: str, most: int) -> bytes | None:
        """The first bytes of a file, at most `most`; None if there is none."""

        def read(path: Path) -> bytes:
            with stream_regular(path) as file:
                return file.read(most)

        return self._of_file(name, read)

    def _of_file(self, name: str, read: Callable[[Path], T]) -> T | None:
        """What is read of a file; None if there is none."""
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
        """Locks the folder for the block, and removes the leftovers of killed processes at its end."""
        return self._locked()

    def joint_writer(self) -> AbstractContextManager[None]:
        """Locks the folder for the block, beside other joint writers."""
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
        """The path of a file to be written or deleted. Raises StoreError for a name that leads out of the folder."""
        if not is_inside(name):
            raise StoreError(f"{name!r} leads out of {self.folder}, and nothing is written or deleted there")
        return self.folder / name

    def _make_parent(self, name: str) -> None:
        """Create the folder of a file within this one, which must exist: one that is away is not made anew."""
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
        """The folder, for messages."""
        ...

    def size(self, name: str) -> int | None:
        """The size of a file in bytes; None if there is none."""
        ...


Output = Union[LocalOutput, "RemoteOutput"]
"""Writes the files of one split. Every file appears whole or not at all. It is thread-safe and can be pickled.

A name is a path relative to the folder, with `/` between its parts. `is_locked` tells whether `sole_writer` can keep
other writers out, with BusyError if another run writes. Raises StoreError for what cannot be written or read,
OutageError for a store that does not answer.
"""


def open_output(where: Location | Output) -> Output:
    """The output at a location; an output is returned as it is.

    Raises ValueError for a URL that cannot be written to.
    """
    if not isinstance(where, str | Path):
        return where
    if not is_url(where):
        return LocalOutput(where)
    from .remote_output import RemoteOutput  # imported here because a local folder does not need the clients of stores

    return RemoteOutput(str(where))


def within(folder: Location, name: str) -> Location:
    """The location of a file or folder `name` in `folder`."""
    return f"{str(folder).rstrip('/')}/{name}" if is_url(folder) else Path(folder) / name


def split_folder_and_name(location: Location) -> tuple[Location, str]:
    """The folder of a file, and the file's name in it."""
    if is_url(location):
        folder, _, name = str(location).rpartition("/")
        return folder, name
    return Path(location).parent, Path(location).name


def get_last_parts(location: Location, count: int) -> str:
    """The last `count` parts of a location, with `/` between them."""
    return "/".join(PurePosixPath(location).parts[-count:])
