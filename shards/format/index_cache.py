"""Index files, one per manifest and machine: they are unpacked once, and every process maps them.

They are in the folder `indexes` of the cache folder, named by a checksum of the checksums of the parts. So equal
manifests share one index, wherever their splits are, and different manifests never share one. The folder may be deleted
at any time. A small manifest, and any manifest where the folder cannot be written to, is unpacked into memory.

An index file contains the arrays of a manifest one after another, each at a multiple of 64 bytes. Then follows the
header, JSON with a checksum, the arrays' positions and checksums, and finally its size and a magic number. A file
without a complete header is not an index, so a half-written file is never used. A process that opens a file written by
another process compares the arrays with their checksums, and unpacks a damaged one again. The file may be unnamed
(memfd); a process that is being started then inherits its descriptor.
"""

from __future__ import annotations

import fcntl
import io
import logging
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import xxhash
from platformdirs import user_cache_path

from maskstream.shards.checksummed import add_checksum, read_checksummed
from maskstream.shards.descriptors import Detachable, pass_on_descriptors
from maskstream.shards.errors import MaskstreamError, StoreError
from maskstream.shards.own_folder import make_own_folder
from maskstream.shards.stores.local_files import publishing

from .data_errors import described

Array = npt.NDArray[Any]

_ALIGNMENT = 64
_MAGIC = b"msindex2"
_END_BYTES = 8 + len(_MAGIC)
_CHUNK_BYTES = 1 << 22
FILLED_AT_ONCE = 1 << 20


class SpoolError(MaskstreamError):
    """An index file, or a temporary file for it, cannot be written; the cause is an OSError."""


class Spool:
    """An append-only array in a temporary file. Its dtype is widened when a value needs it."""

    def __init__(self, new_file: Callable[[], BinaryIO], dtype: npt.DTypeLike) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.length = 0
        self._new_file = new_file
        with _open_writing():
            self._file = new_file()

    def append(self, values: Array) -> None:
        """Add values at the end."""
        wide = np.promote_types(self.dtype, values.dtype)
        if wide != self.dtype:
            self._widen_column(wide)
        with _open_writing():
            self._file.seek(0, os.SEEK_END)
            _write(self._file, values.astype(self.dtype, copy=False))
        self.length += len(values)

    def chunks(self) -> Iterator[Array]:
        """The values from the first to the last."""
        self._file.seek(0)
        while data := self._file.read(_CHUNK_BYTES):
            yield np.frombuffer(data, self.dtype)

    def fill(self, rows: int, value: int) -> None:
        """Append the same value until the array has this many rows."""
        while (lacking := min(rows - self.length, FILLED_AT_ONCE)) > 0:
            self.append(np.full(lacking, value, self.dtype))

    def write(self, writer: IndexWriter, name: str) -> None:
        """Write the array into an index file, and delete the file."""
        writer.put(name, self.dtype, self.chunks())
        self.close()

    def close(self) -> None:
        """Delete the file."""
        self._file.close()

    def _widen_column(self, dtype: np.dtype[Any]) -> None:
        with _open_writing():
            wider = self._new_file()
            for chunk in self.chunks():
                _write(wider, chunk.astype(dtype))
        self._file.close()
        self._file, self.dtype = wider, dtype


class IndexWriter:
    """Writes an index file from its first byte to its last."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._at = 0
        self._arrays: dict[str, tuple[int, str, int, str]] = {}

    def put(self, name: str, dtype: npt.DTypeLike, chunks: Iterable[Array]) -> None:
        """Write an array whose values come in chunks."""
        begin = -(-self._at // _ALIGNMENT) * _ALIGNMENT
        self._write(np.zeros(begin - self._at, np.uint8))
        length, digest = 0, xxhash.xxh3_64()
        for chunk in chunks:
            values = np.ascontiguousarray(chunk, dtype)
            self._write(values)
            digest.update(values.data)
            length += len(chunk)
        self._arrays[name] = (begin, np.dtype(dtype).str, length, digest.hexdigest())

    def finish(self, header: Mapping[str, Any]) -> None:
        """Write the header and the end of the file."""
        data = add_checksum({**header, "arrays": self._arrays})
        self._write(np.frombuffer(data + len(data).to_bytes(8, "little") + _MAGIC, np.uint8))

    def _write(self, array: Array) -> None:
        with _open_writing():
            _write(self._stream, array)
        self._at += array.nbytes


class IndexFile:
    """An index file that is mapped for reading. `header` is the value that was passed to `IndexWriter.finish`."""

    def __init__(self, descriptor: int) -> None:
        """Take ownership of the descriptor, which is closed with the last reference. Raises ValueError if it is not a
        complete index.
        """
        self._descriptor = descriptor
        size = os.fstat(descriptor).st_size
        if size < _END_BYTES:
            raise ValueError(f"it has {size} bytes")
        self._memory = memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
        end = size - _END_BYTES
        length = int.from_bytes(self._memory[end : end + 8], "little")
        if self._memory[end + 8 :] != _MAGIC or length > end:
            raise ValueError("its header is incomplete")
        self.header = read_checksummed(bytes(self._memory[end - length : end]))
        self._arrays: dict[str, tuple[int, str, int, str]] = self.header.pop("arrays")

    @classmethod
    def at(cls, path: Path) -> IndexFile:
        """Open the index file at `path`. Raise OSError, or ValueError if it is not a complete index."""
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def array(self, name: str) -> Array:
        """Return a read-only array in the mapped memory."""
        begin, dtype, length, _ = self._arrays[name]
        if not length:
            return _read_only(np.empty(0, dtype))
        return np.frombuffer(self._memory, dtype, length, begin)

    def check(self) -> None:
        """Raise ValueError if an array differs from the written one."""
        for name, (*_, written) in self._arrays.items():
            if xxhash.xxh3_64_hexdigest(self.array(name).data) != written:
                raise ValueError(f"its array {name} does not match its checksum")

    def pickle_for_process(self) -> object:
        """Return the placeholder for the pickle of a process that is being started; there, `received` opens the same
        index.
        """
        return pass_on_descriptors(self._descriptor)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self._descriptor)


def received(descriptor: Detachable) -> IndexFile:
    """The index file of the parent process."""
    return IndexFile(descriptor.detach())


@contextmanager
def _open_writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpoolError(f"an index file cannot be written ({error.strerror})") from error


def _write(file: BinaryIO, array: Array) -> None:
    """Write the bytes of an array; a file without a buffer may take them in several parts."""
    left = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    while left:
        left = left[file.write(left) :]


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


log = logging.getLogger(__name__)

CACHE = "MASKSTREAM_CACHE"
"""The environment variable that names the cache folder."""
SMALL_BYTES = 8 << 20
"""Manifests whose parts have at most this many bytes are unpacked into memory; it takes about 0.1 s."""

NewFile = Callable[[], BinaryIO]
Unpack = Callable[[NewFile, BinaryIO], None]
"""Unpack the parts into the stream with the help of temporary files. It may be called twice."""


def cache_folder() -> Path:
    """Return the folder of reproducible data: MASKSTREAM_CACHE, or `maskstream` in the user's cache folder."""
    return Path(os.environ.get(CACHE) or user_cache_path("maskstream"))


def open_cached_index(key: str, size_bytes: int, unpack: Unpack) -> IndexFile:
    """Return the index file with the name `key` of a manifest whose parts have `size_bytes` bytes.

    Errors of `unpack` are passed on; OSError is raised only if neither the cache folder nor memory can hold the index.
    """
    if size_bytes <= SMALL_BYTES:
        return open_in_memory(unpack)
    folder = cache_folder() / "indexes"
    try:
        folder = make_own_folder(folder)
        path = folder / f"{key}.index"
        if (index := _whole(path, key)) is not None:
            return index
        # One process of a machine unpacks, and the others wait for it. The file appears by a rename, so those that
        # arrive later map it without the lock.
        with _wait_alone(folder):
            if (index := _whole(path, key)) is not None:  # another process has unpacked it in the meantime
                return index
            for leftover in folder.glob(f".{path.name}.*.tmp"):
                leftover.unlink(missing_ok=True)
            with publishing(path) as stream:
                unpack(partial(_temporary, folder), stream)
        index = IndexFile.at(path)
    except (OSError, SpoolError, StoreError, ValueError) as error:
        if isinstance(error, StoreError) and not isinstance(error.__cause__, OSError):
            raise  # of the split, not of the cache folder
        log.warning(
            "%s cannot hold the index of a manifest (%s), so each process keeps it in its own memory; set a "
            "different folder with %s",
            folder,
            described(error),
            CACHE,
        )
        return open_in_memory(unpack)
    return index


def forget(key: str) -> None:
    """Delete the index file with this name; processes that have mapped it keep it."""
    with suppress(OSError):
        (make_own_folder(cache_folder() / "indexes") / f"{key}.index").unlink(missing_ok=True)


def open_in_memory(unpack: Unpack) -> IndexFile:
    """Return the unnamed index file in memory."""
    with _open_unnamed() as stream:
        unpack(io.BytesIO, stream)
        stream.flush()
        return IndexFile(os.dup(stream.fileno()))


def _temporary(folder: Path) -> BinaryIO:
    """Return an unnamed temporary file without a buffer, which could otherwise run into a full disk when closed."""
    return cast(BinaryIO, tempfile.TemporaryFile(dir=folder, buffering=0))


def _open_unnamed() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("maskstream", os.MFD_CLOEXEC), "w+b")
    return tempfile.TemporaryFile()


def _whole(path: Path, key: str) -> IndexFile | None:
    """Return the index file at `path` if it is complete and has this key."""
    with suppress(OSError, ValueError, KeyError):
        index = IndexFile.at(path)
        if index.header["key"] == key:
            index.check()
            return index
    return None


@contextmanager
def _wait_alone(folder: Path) -> Iterator[None]:
    """Wait until no other process unpacks into the folder. Without file locks, several processes may do the same
    work.
    """
    with open(folder / ".unpacking", "ab") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
