"""The store of a local folder. It reads with pread, without a shared file position, and checks ranges against their
sums.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from weakref import WeakSet

import numpy as np

from maskstream.shards.arrays import Int64s, UInt8s
from maskstream.shards.errors import MissingFileError, OutageError, StoreError

from .base import UNHEEDED, Range, ShardFile, Store, Together
from .block_sums import (
    SUMS,
    check_blocks,
    compute_sums_size,
    find_blocks_around,
    find_sums_range,
    group_runs_of_blocks,
    name_sums_file,
    say_unchecked,
)
from .local_files import make_error, open_regular, read_regular

_OPEN_FILES, _FEWEST = 64, 8
"""Maximum number of files that one store keeps open, and number that all stores of a process may always keep open."""
_SHARE = 4
"""All stores of a process keep at most this fraction (1/4) of the process's file limit; each file takes two
descriptors.
"""
_KEPT_SUMS = 1 << 17
"""Sums of at most this many bytes (for a file of 64 MiB) are read once and kept in memory."""


class LocalStore:
    """The `Store` of a local folder.

    It keeps up to 64 files open, fewer if the process may open few (`ulimit -n`), and opens only regular files. The
    sums files are in the folder, even if the tars are not. A copy in another process opens its own files.

    Args:
        folder: Path of the folder.
        outside: True if files may be outside of the folder, as foreign tars may; by default such names are refused.
    """

    def __init__(self, folder: str | Path, *, outside: bool = False) -> None:
        self.folder = Path(folder)
        self.outside = outside
        self._files: OrderedDict[str, _File] = OrderedDict()
        with _KEPT.lock:
            _KEPT.stores.add(self)

    def __reduce__(self) -> tuple[Callable[..., LocalStore], tuple[Path, bool]]:
        return _store_of, (self.folder, self.outside)

    @property
    def location(self) -> str:
        """Path of the folder."""
        return str(self.folder)

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset`.

        If the file has a sums file, the blocks around the range are read and checked.

        Raises:
            StoreError: The file is too short, or the bytes differ from their sums.
        """
        data, begin = _blocks(self._open(name), offset, size)
        return data[offset - begin : offset - begin + size]

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read the ranges. Ranges whose blocks overlap or touch are read together."""
        if len(ranges) < 2:
            return [self.read(*each) for each in ranges]
        found, file, opened = [b""] * len(ranges), None, None
        try:
            for run in group_runs_of_blocks(ranges):
                name, first, size = ranges[run[0]]
                if len(run) > 1:
                    size = max([ranges[n].offset + ranges[n].size for n in run]) - first
                if file is None or name != opened:
                    file, opened = self._open(name), name
                data, begin = _blocks(file, first, size)
                for n in run:
                    _, offset, size = ranges[n]
                    if size < 0:
                        raise StoreError("a size is negative")
                    found[n] = data[offset - begin : offset - begin + size]
        except StoreError:
            return [self.read(*each) for each in ranges]  # raises the error of the first range that has one
        return found

    def read_joined(self, names: Sequence[str], numbers: Int64s, ranges: Int64s) -> UInt8s | None:
        """Read ranges with compiled code, and return their bytes joined, uint8 (total,).

        Args:
            names: Names of the files.
            numbers: Index in `names` of the file of each row of `ranges`, int64 (P,).
            ranges: First byte and number of bytes of K ranges of each file, int64 (P, 2 K).

        Returns:
            The bytes; None if a range cannot be read or a file has no sums. `read_many` then reads it or raises the
                error.
        """
        from .checked_reads import read_ranges

        places: dict[int, int] = {}
        which = np.array([places.setdefault(number, len(places)) for number in numbers.tolist()])
        try:
            files = [file.describe_for_kernels() for file in self._open_many([names[number] for number in places])]
        except (StoreError, OutageError, OSError):
            return None
        rows = [file.row for file in files if file.legal]
        if len(rows) < len(files):
            return None
        found = read_ranges(which, np.ascontiguousarray(ranges), np.array(rows))
        return found if len(found) else None

    def unchecked(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset` without checking them against the sums."""
        file = self._open(name)
        _check_range(file, offset, size)
        return _range(file, offset, size)

    def whole(self, name: str, most: int) -> bytes:
        """Return the contents of a file of at most `most` bytes."""
        path = self.folder / name
        try:
            return read_regular(path, most)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingFileError(f"{path} does not exist") from error
        except (OSError, MemoryError) as error:
            raise make_error(path, error) from error

    def size(self, name: str) -> int:
        """Return the size of the file in bytes."""
        return self._open(name).size_bytes

    def names(self, prefix: str = "") -> list[str]:
        """Return the sorted names, with `prefix`, of the files in the folder and below it."""
        found = []
        for parent, _, files in os.walk(self.folder / prefix.rpartition("/")[0]):
            found += [Path(parent, file).relative_to(self.folder).as_posix() for file in files]
        return sorted(name for name in found if name.startswith(prefix))

    def folders(self) -> list[str]:
        """Return the sorted names of the subfolders; [] if the folder does not exist."""
        try:
            return sorted(path.name for path in self.folder.iterdir() if path.is_dir())
        except OSError:
            return []

    def of_split(self, shards: Mapping[str, ShardFile], *, outside: bool) -> Store:
        """Return this store, or one whose files may be outside of the folder. Sizes come from the files themselves."""
        return self if outside == self.outside else LocalStore(self.folder, outside=outside)

    def announce(self, ranges: Sequence[Range]) -> Together:
        """Ignore the announcement, since local files are not read ahead."""
        return UNHEEDED

    def _open_many(self, names: Sequence[str]) -> list[_File]:
        with _KEPT.lock:
            if self._files.keys() >= {*names}:
                for name in names:
                    self._files.move_to_end(name)
                return [self._files[name] for name in names]
        return [self._open(name) for name in names]

    def _open(self, name: str) -> _File:
        with _KEPT.lock:
            if (file := self._files.get(name)) is not None:
                self._files.move_to_end(name)
                return file
        file = self._opened(name)
        with _KEPT.lock:
            self._files[name] = file
            while len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)
            if (limit := resource.getrlimit(resource.RLIMIT_NOFILE)[0]) != resource.RLIM_INFINITY:
                _KEPT.shrink(max(limit // _SHARE, _FEWEST))
        return file

    def _opened(self, name: str) -> _File:
        """Open the file. If the process cannot open more files, all other kept files are closed first."""
        path = self.folder / name
        try:
            try:
                return _File(path, self.folder, outside=self.outside)
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
            with _KEPT.lock:
                _KEPT.shrink(0)
            return _File(path, self.folder, outside=self.outside)
        except OSError as error:
            which = path if error.filename is None else error.filename
            raise make_error(which, error, "cannot be opened") from error


class _Kept:
    """The local stores of this process, which share one limit of open files. `lock` guards them and
    the files of each.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stores: WeakSet[LocalStore] = WeakSet()
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.lock = threading.Lock()  # a thread of the parent may hold the old lock

    def shrink(self, most: int) -> None:
        """Close the oldest files of the stores with the most open files, until at most `most` are open in total."""
        stores = list(self.stores)
        left = sum(len(store._files) for store in stores) - most
        while left > 0:
            max(stores, key=lambda store: len(store._files))._files.popitem(last=False)
            left -= 1


_KEPT = _Kept()


def _store_of(folder: Path, outside: bool) -> LocalStore:
    return LocalStore(folder, outside=outside)


def _check_range(file: _File, offset: int, size: int) -> None:
    """Raise StoreError for a range that the file does not have, before memory is allocated for it."""
    if offset < 0 or size < 0:
        raise StoreError(f"{file.path}: {size} bytes at byte {offset} were requested; neither may be negative")
    if offset + size > file.size_bytes:
        raise StoreError(
            f"{file.path} ends at byte {file.size_bytes}, but bytes {offset} to {offset + size} were requested"
        )


def _range(file: _File, offset: int, size: int) -> bytes:
    path = file.path
    try:
        data = os.pread(file.descriptor, size, offset)
        while len(data) < size and (more := os.pread(file.descriptor, size - len(data), offset + len(data))):
            data += more
    except (OSError, MemoryError) as error:
        raise make_error(path, error, f"cannot be read at byte {offset}") from error
    if len(data) != size:
        raise StoreError(
            f"{path} ends at byte {offset + len(data)}, but bytes {offset} to {offset + size} were requested"
        )
    return data


def _blocks(file: _File, offset: int, size: int) -> tuple[bytes, int]:
    """Return the checked bytes of the blocks around a range, and the offset where they begin."""
    if offset < 0 or size < 0 or offset + size > file.size_bytes:
        _check_range(file, offset, size)
    if file.sums is None:
        return _range(file, offset, size), offset
    begin, end = find_blocks_around(offset, size, file.size_bytes)
    data = _range(file, begin, end - begin)
    at, size_bytes = find_sums_range(begin, end - begin)
    kept = file.kept_sums
    sums = _sums(file, file.sums, at, size_bytes) if kept is None else kept[at : at + size_bytes]
    check_blocks(file.path, begin, data, sums)
    return data, begin


def _sums(file: _File, descriptor: int, at: int, size_bytes: int) -> bytes:
    try:
        if compute_sums_size(file.size_bytes) > _KEPT_SUMS:
            return os.pread(descriptor, size_bytes, at)
        if file.kept_sums is None:
            file.kept_sums = os.pread(descriptor, _KEPT_SUMS, 0)
        return file.kept_sums[at : at + size_bytes]
    except OSError as error:
        raise make_error(f"the {SUMS} file of {file.path}", error) from error


class _ForKernels(NamedTuple):
    """A file as `read_ranges` needs it.

    Attributes:
        row: Row of the file in `files`.
        legal: True if its sums exist and are complete.
        sums: The sums in memory, uint8 (n,), whose address is in `row`.
    """

    row: tuple[int, int, int, int]
    legal: bool
    sums: UInt8s


class _File:
    """Descriptors of a file and, if it exists, of its sums file. They are closed with the last reference.

    That may happen while the interpreter exits and `os` no longer exists, so `__del__` keeps a reference to `os.close`.
    """

    def __init__(self, path: Path, folder: Path, *, outside: bool) -> None:
        self.path = path
        self._opened: list[int] = []
        self.descriptor = self._open(path, None if outside else folder)
        self.size_bytes = os.fstat(self.descriptor).st_size
        self.kept_sums: bytes | None = None
        self._for_kernels: _ForKernels | None = None
        self.sums: int | None = None
        if (sums := name_sums_file(path.name)) is not None:
            try:
                self.sums = self._open(folder / sums)
            except FileNotFoundError:
                say_unchecked(str(folder), sums)

    def _open(self, path: Path, within: Path | None = None) -> int:
        descriptor = open_regular(path, within)
        self._opened.append(descriptor)
        return descriptor

    def describe_for_kernels(self) -> _ForKernels:
        """Return the file's description for a kernel. The caller keeps it and this file alive until
        the kernel is done.
        """
        if self._for_kernels is None:
            sums, size = -1 if self.sums is None else self.sums, compute_sums_size(self.size_bytes)
            if self.kept_sums is None and sums >= 0 and size <= _KEPT_SUMS:
                self.kept_sums = os.pread(sums, _KEPT_SUMS, 0)
            kept = np.frombuffer(self.kept_sums or b"", np.uint8)
            row = (self.descriptor, self.size_bytes, kept.ctypes.data if len(kept) else 0, sums)
            self._for_kernels = _ForKernels(row, sums >= 0 and (len(kept) >= size or not len(kept)), kept)
        return self._for_kernels

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        for descriptor in self._opened:
            close(descriptor)
