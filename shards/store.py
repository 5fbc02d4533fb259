"""Where the bytes of shards come from: ranges of local files, read without moving a shared position."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path

from .errors import StoreError

_OPEN_FILES = 64


class LocalStore:
    """Reads ranges of files through a few kept-open descriptors; safe to use from many threads.

    A copy that is sent to another process opens its own files there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[Path, _File] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__()  # type: ignore[misc]

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset`; StoreError where the file does not have them."""
        file = self._open(path)
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
                    file = _File(path)
                except OSError as error:
                    raise StoreError(f"{path} cannot be opened: {error.strerror}") from error
            self._files[path] = file
            while len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)
            return file


class _File:
    """A descriptor that is closed when the last reader lets go of it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        descriptor = getattr(self, "descriptor", None)
        if descriptor is not None:
            os.close(descriptor)
