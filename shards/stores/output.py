"""The output protocol: a folder that a split is written to, on a disk or in an object store."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Protocol

from .base import Store
from .local_output import LocalOutput
from .url import is_url

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


class Writable(Protocol):
    """What a file is written to."""

    def write(self, data: bytes, /) -> int: ...


class Output(Sizes, Protocol):
    """Writes the files of one split. Every file appears whole or not at all. It is thread-safe and can be pickled.

    A name is a path relative to the folder, with `/` between its parts. Raises StoreError for what cannot be written or
    read, OutageError for a store that does not answer.
    """

    @property
    def is_locked(self) -> bool:
        """Whether `sole_writer` can keep other writers out."""
        ...

    @property
    def store(self) -> Store:
        """Reads the same folder."""
        ...

    def writing(self, name: str) -> AbstractContextManager[Writable]:
        """A stream that writes the file. Leaving the block publishes it; after an exception nothing is published."""
        ...

    def publish(self, name: str, data: bytes) -> None:
        """Write a file, which replaces an earlier one."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a file if there is none of this name; returns whether it was written."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Delete files; those that do not exist are ignored."""
        ...

    def names(self, prefix: str = "") -> list[str]:
        """The sorted names that begin with `prefix`, in the folder and below it."""
        ...

    def sizes(self) -> Sizes:
        """The sizes as they are now, which are asked for at once where each question costs a request."""
        ...

    def whole(self, name: str, most: int) -> bytes | None:
        """The contents of a file; None if there is none. Raises StoreError for more than `most` bytes."""
        ...

    def head(self, name: str, most: int) -> bytes | None:
        """The first bytes of a file, at most `most`; None if there is none."""
        ...

    def make(self) -> None:
        """Create the folder, where folders exist without files."""
        ...

    def sole_writer(self) -> AbstractContextManager[None]:
        """Keeps other writers out during the block, where the output can; the folder is created.

        Raises BusyError if another run writes. At the end of the block the leftovers of killed processes are removed.
        """
        ...

    def joint_writer(self) -> AbstractContextManager[None]:
        """Keeps sole writers out during the block, where the output can, but no other joint writers."""
        ...

    def remove_leftovers(self, folder: str = "") -> None:
        """Delete what killed writers left half-written in `folder`. No writer may be active there."""
        ...


def output_at(where: Location | Output) -> Output:
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


def folder_and_name(location: Location) -> tuple[Location, str]:
    """The folder of a file, and the file's name in it."""
    if is_url(location):
        folder, _, name = str(location).rpartition("/")
        return folder, name
    return Path(location).parent, Path(location).name


def last_parts(location: Location, count: int) -> str:
    """The last `count` parts of a location, with `/` between them."""
    return "/".join(PurePosixPath(location).parts[-count:])
