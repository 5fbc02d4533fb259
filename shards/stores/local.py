"""Where the bytes of shards come from: ranges of local files, read without moving a shared position, and checked."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..errors import StoreError
from .block_sums import SUMS, blocks_around, check_blocks

_OPEN_FILES = 64


class LocalStore:
    """Reads ranges of files through a few kept-open descriptors; safe to use from many threads.

    sums: the folder in which the sums of tars are, by default beside each. A copy that is sent to another process opens
    its own files there.
    """

    def __init__(self, sums: Path | None = None) -> None:
        self._sums = sums
        self._lock = threading.Lock()
        self._files: OrderedDict[Path, _File] = OrderedDict()

    def __reduce__(self) -> tuple[type[LocalStore], tuple[Path | None]]:
        return LocalStore, (self._sums,)

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset`.

        Of a tar with a file of sums beside it the whole blocks around them are read and compared. StoreError where the
        file does not have the bytes, or they are not those that were written.
        """
        file = self._open(path)
        if file.sums is None or offset + size > file.size_bytes:
            return self._range(path, file, offset, size)
        begin, end = blocks_around(offset, size, file.size_bytes)
        data = self._range(path, file, begin, end - begin)
        check_blocks(path, begin, data, file.sums)
        return data[offset - begin : offset - begin + size]

    def _range(self, path: Path, file: _File, offset: int, size: int) -> bytes:
        try:
            data = os.pread(file.descriptor, size, offset)
            while len(data) < size and (more := os.pread(file.descriptor, size - len(data), offset + len(data))):
                data += more
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror} at byte {offset}") from error
        if len(data) != size:
            raise StoreError(f"{path} ends at byte {offset + len(data)}, wanted are bytes {offset} to {offset + size}")
        return data

    def _open(self, path: Path) -> _File:
        with self._lock:
            file = self._files.pop(path, None)
            if file is None:
                try:
                    file = _File(path, self._sums or path.parent)
                except OSError as error:
                    raise StoreError(f"{path} cannot be opened: {error.strerror}") from error
            self._files[path] = file
            while len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)
            return file


class _File:
    """Descriptors of a file and of its sums, if it has some, closed when the last reader lets go of them.

    That may be when the interpreter ends and `os` is gone.
    """

    def __init__(self, path: Path, sums: Path) -> None:
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
