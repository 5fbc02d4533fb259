"""Where the bytes of shards come from: ranges of local files, read without moving a shared position, and checked."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import StoreError
from .base import Range
from .block_sums import SUMS, blocks_around, check_blocks

_OPEN_FILES = 64


class LocalStore:
    """The `Store` of a folder: reads through a few kept-open descriptors.

    The sums of tars lie in the folder itself, wherever the tars are. A copy in another process opens its own files.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _File] = OrderedDict()

    def __reduce__(self) -> tuple[type[LocalStore], tuple[Path]]:
        return LocalStore, (self.folder,)

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset`.

        Of a tar that has a file of sums the whole blocks around them are read and compared. StoreError where the
        file does not have the bytes, or they are not those that were written.
        """
        file = self._open(name)
        if file.sums is None or offset + size > file.size_bytes:
            return _range(file, offset, size)
        begin, end = blocks_around(offset, size, file.size_bytes)
        data = _range(file, begin, end - begin)
        check_blocks(file.path, begin, data, file.sums)
        return data[offset - begin : offset - begin + size]

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """One after the other."""
        return [self.read(*each) for each in ranges]

    def size(self, name: str) -> int:
        """The size of the file in bytes."""
        return self._open(name).size_bytes

    def names(self, prefix: str = "") -> list[str]:
        """The sorted names of the files in the folder and below it."""
        found = []
        for parent, _, files in os.walk(self.folder / prefix.rpartition("/")[0]):
            found += [Path(parent, file).relative_to(self.folder).as_posix() for file in files]
        return sorted(name for name in found if name.startswith(prefix))

    def _open(self, name: str) -> _File:
        with self._lock:
            file = self._files.pop(name, None)
            if file is None:
                path = self.folder / name
                try:
                    file = _File(path, self.folder)
                except OSError as error:
                    raise StoreError(f"{path} cannot be opened: {error.strerror}") from error
            self._files[name] = file
            while len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)
            return file


def _range(file: _File, offset: int, size: int) -> bytes:
    path = file.path
    try:
        data = os.pread(file.descriptor, size, offset)
        while len(data) < size and (more := os.pread(file.descriptor, size - len(data), offset + len(data))):
            data += more
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror} at byte {offset}") from error
    if len(data) != size:
        raise StoreError(f"{path} ends at byte {offset + len(data)}, wanted are bytes {offset} to {offset + size}")
    return data


class _File:
    """Descriptors of a file and of its sums, if it has some, closed when the last reader lets go of them.

    That may be when the interpreter ends and `os` is gone.
    """

    def __init__(self, path: Path, sums: Path) -> None:
        self.path = path
        self._opened: list[int] = []
        self.descriptor = self._open(path)
        self.size_bytes = os.fstat(self.descriptor).st_size
        self.sums: int | None = None
        if path.suffix == ".tar":
            with suppress(FileNotFoundError):
                self.sums = self._open((sums / path.name).with_suffix(SUMS))

    def _open(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._opened.append(descriptor)
        return descriptor

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        for descriptor in self._opened:
            close(descriptor)
