"""The output to a local folder: files are published by a rename, and a lock keeps other writers out."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from maskstream.shards.errors import MaskstreamError, StoreError
from maskstream.shards.reach import stays_inside

from .local import LocalStore
from .publish import create, publishing, remove_leftovers, sync_folder
from .regular import error_of, read_regular, stream_regular
from .sole_writer import joint_writer, sole_writer


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
        try:
            found = (self.folder / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(name, error) from error
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def whole(self, name: str, most: int) -> bytes | None:
        """The contents of a file; None if there is none. Raises StoreError for more than `most` bytes."""
        try:
            return read_regular(self.folder / name, most)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(name, error) from error

    def head(self, name: str, most: int) -> bytes | None:
        """The first bytes of a file, at most `most`; None if there is none."""
        try:
            with stream_regular(self.folder / name) as file:
                return file.read(most)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(name, error) from error

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
        if not stays_inside(name):
            raise StoreError(f"{name!r} leads out of {self.folder}, and nothing is written or deleted there")
        return self.folder / name

    def _make_parent(self, name: str) -> None:
        """Create the folder of a file within this one, which must exist: one that is away is not made anew."""
        parent = self._at(name).parent
        if parent != self.folder and not parent.is_dir():
            parent.mkdir(exist_ok=True)
            sync_folder(self.folder)

    def _unreadable(self, name: str, error: OSError) -> MaskstreamError:
        return error_of(self.folder / name, error)
