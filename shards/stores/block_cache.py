"""Cache of a node: blocks of remote files on a local disk, shared by all processes of the node.

A cached file is sparse: each block has the same offset as in the remote file. Every read compares the blocks with their
sums. A hole, a half-written block or a damaged one differs, so it is fetched and written again. This needs no locks and
no list of cached blocks, and a killed process leaves nothing to clean up.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash

from maskstream.shards.errors import MaskstreamError
from maskstream.shards.own_folder import make_own_folder

from .base import Range, Store
from .block_sums import BLOCK_BYTES, SUM_BYTES, sum_blocks

log = logging.getLogger(__name__)

Fetch = Callable[[int, int], bytes]
"""Fetches exactly `size` bytes at `begin` of the remote file, already checked."""

LEAST_BYTES = 1 << 20
"""Smallest allowed limit."""
PAUSE_S = 60.0
"""Seconds without writes after a failed write."""
_NAME = re.compile(r"[0-9a-f]{32}\.(blocks|whole)")
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_DIGEST_BYTES = 16
_PARTS = 1024
"""A process measures the cache each time it has written this fraction (1/1024) of the limit. Files are removed once
15/16 of the limit is reached, so the limit holds for up to 64 processes.
"""
_TOUCH_S = 10.0


class BlockCache:
    """Keeps up to `limit_bytes` of remote files in `folder`, which other processes may share.

    A cached file is named by a hash of its location and sha256, so different contents never mix. The least recently
    used files are removed, each as a whole. If the disk is full or cannot be written, only caching stops, with one
    warning. Threads may share a cache, and a pickled copy uses the same folder.

    Args:
        folder: Folder of the cache. If other users may write to it, a subfolder of this user is used (`own_folder`).
        limit_bytes: Most bytes on disk.

    Raises:
        ValueError: The limit is below 1 MiB.
    """

    def __init__(self, folder: str | Path, limit_bytes: int) -> None:
        if limit_bytes < LEAST_BYTES:
            raise ValueError(f"got a cache of {limit_bytes} bytes; expected at least {LEAST_BYTES} bytes")
        self.folder, self.limit_bytes = Path(folder), limit_bytes
        self._lock = threading.Lock()
        self._unseen = limit_bytes  # written since the last measurement; a new process measures before it writes
        self._again_s = 0.0
        self._warned = False
        with self._writing():
            self.folder = make_own_folder(self.folder)

    def __reduce__(self) -> tuple[Callable[..., BlockCache], tuple[Path, int]]:
        return BlockCache, (self.folder, self.limit_bytes)

    def read(self, file: str, begin: int, size: int, sums: bytes, fetch: Fetch) -> bytes:
        """Return the bytes [begin, begin + size) of a remote file. Missing or damaged blocks are fetched and cached.

        The span from the first to the last of these blocks is fetched with one request.

        Args:
            file: Identity of the remote file.
            begin: First byte, at the start of a block.
            size: Number of bytes; all blocks but the file's last one are whole.
            sums: Block sums of these bytes.
            fetch: Fetches and checks bytes of the remote file.
        """
        path = self._path(file, "blocks")
        found = self._stored(path, begin, size)
        if (lacking := _read_lacking(found, size, sums)) is None:
            return found
        at, end = lacking
        data = fetch(begin + at, end - at)
        self._store(path, begin + at, data)
        if end - at == size:
            return data
        return b"".join((found[:at], data, found[end:]))

    def has_any(self, file: str, begin: int, size: int) -> bool:
        """Return True if any of [begin, begin + size) is cached, without checking it."""
        return self._data(file, begin) < begin + size

    def has_all(self, file: str, begin: int, size: int) -> bool:
        """Return True if the cached file has no hole in [begin, begin + size); its contents may still be wrong."""
        return self._data(file, begin, size) == begin

    def put(self, file: str, begin: int, data: bytes) -> None:
        """Cache blocks of a remote file that were fetched and checked."""
        self._store(self._path(file, "blocks"), begin, data)

    def whole(self, file: str, fetch: Callable[[], bytes]) -> bytes:
        """Return a small remote file that has no sums, such as a sums file. It is cached with its own checksum in
        front.
        """
        path = self._path(file, "whole")
        with suppress(OSError):
            size = os.stat(path, follow_symlinks=False).st_size
            found = self._stored(path, 0, size)
            if found[:_DIGEST_BYTES] == xxhash.xxh3_128_digest(memoryview(found)[_DIGEST_BYTES:]):
                return found[_DIGEST_BYTES:]
        data = fetch()
        self._store(path, 0, xxhash.xxh3_128_digest(data) + data, end=True)
        return data

    def forget(self, file: str) -> None:
        """Discard this cached whole file, so that it is fetched again."""
        _remove(self._path(file, "whole"))

    def fits(self, size_bytes: int) -> bool:
        """Return True if this many bytes fit into an empty cache."""
        return size_bytes <= self.limit_bytes // 8 * 7

    def measure_used_bytes(self) -> int:
        """Return the disk space in bytes that the cached files occupy."""
        return sum(taken for _, taken, _ in self._files())

    def _path(self, file: str, kind: str) -> str:
        return f"{self.folder}/{xxhash.xxh3_128_hexdigest(file.encode())}.{kind}"

    def _stored(self, path: str, begin: int, size: int) -> bytes:
        """Return the cached part of these bytes; b"" if the file cannot be read."""
        try:
            descriptor = os.open(path, os.O_RDONLY | _FLAGS)
        except OSError:
            return b""
        try:
            if time.time() - os.fstat(descriptor).st_mtime > _TOUCH_S:
                with suppress(OSError):
                    os.utime(descriptor)
            return os.pread(descriptor, size, begin)
        except OSError:
            return b""
        finally:
            os.close(descriptor)

    def _store(self, path: str, begin: int, data: bytes, *, end: bool = False) -> None:
        """Write bytes into a cached file if there is room; with `end`, truncate the file after them."""
        if time.monotonic() < self._again_s:
            return
        with self._writing():
            self._make_room(len(data))
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | _FLAGS, 0o644)
            try:
                os.pwrite(descriptor, data, begin)  # bytes missed by a short write are fetched again
                if end:
                    os.ftruncate(descriptor, begin + len(data))
            finally:
                os.close(descriptor)

    def _data(self, file: str, begin: int, size: int = 0) -> int:
        """Return the offset of the first data at or after `begin`; sys.maxsize if none, or if a hole begins within
        `size`.
        """
        try:
            descriptor = os.open(self._path(file, "blocks"), os.O_RDONLY | _FLAGS)
        except OSError:
            return sys.maxsize
        try:
            data = os.lseek(descriptor, begin, os.SEEK_DATA)
            return data if not size or os.lseek(descriptor, data, os.SEEK_HOLE) >= data + size else sys.maxsize
        except (OSError, OverflowError):  # no data after `begin`, or an impossible offset
            return sys.maxsize
        finally:
            os.close(descriptor)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Catch the OSError of a block that writes to the disk, and pause the cache."""
        try:
            yield
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        with self._lock:
            self._again_s = time.monotonic() + PAUSE_S
            warned, self._warned = self._warned, True
        if not warned:
            log.warning(
                "the cache %s cannot be written (%s); blocks are not cached until it can be", self.folder, error
            )

    def _make_room(self, size: int) -> None:
        """Remove the least recently used files if the cache is nearly full."""
        with self._lock:
            self._unseen += size
            if self._unseen < self.limit_bytes // _PARTS:
                return
            self._unseen = 0
        files = self._files()
        total = sum(taken for _, taken, _ in files)
        if total + size <= self.limit_bytes // 16 * 15:
            return
        for _, taken, path in sorted(files):
            _remove(path)
            total -= taken
            if total + size <= self.limit_bytes // 8 * 7:
                return

    def _files(self) -> list[tuple[float, int, str]]:
        """Return for each cached file when it was last used, its disk space in bytes, and its path."""
        found = []
        with suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        found.append((status.st_mtime, status.st_blocks * 512, entry.path))
        return found


def _read_lacking(found: bytes, size: int, sums: bytes) -> tuple[int, int] | None:
    """Return the span [at, end) from the first to the last block of `found` that differs from its sum; None if all
    agree.
    """
    if len(found) == size and sum_blocks(memoryview(found)) == sums:
        return None
    whole = len(found) if len(found) == size else len(found) // BLOCK_BYTES * BLOCK_BYTES
    have = sum_blocks(memoryview(found)[:whole])
    wrong = [n for n in range(0, len(sums), SUM_BYTES) if have[n : n + SUM_BYTES] != sums[n : n + SUM_BYTES]]
    return wrong[0] // SUM_BYTES * BLOCK_BYTES, min((wrong[-1] // SUM_BYTES + 1) * BLOCK_BYTES, size)


def _remove(path: str) -> None:
    """Remove a file. Truncating it first frees its blocks at once, even while others read it."""
    with suppress(OSError):
        os.truncate(path, 0)
    with suppress(OSError):
        os.unlink(path)


CHUNK_BYTES = 8 << 20
THREADS = 16
BEHIND_THREADS = 2
"""Few threads fill the cache while a loader reads, since the loader's requests take priority."""


def fill(store: Store, names: Sequence[str], progress: Callable[[int], None], *, threads: int = THREADS) -> None:
    """Read whole files of a store into its cache.

    Args:
        store: Store with a cache.
        names: Files to read.
        progress: Called with the number of bytes of each part that is cached.
        threads: Number of threads.

    Raises:
        StoreError: A file cannot be read.
        OutageError: The store cannot be reached.
    """

    def read(chunk: Range) -> int:
        return len(store.read(*chunk))

    with ThreadPoolExecutor(threads, thread_name_prefix="maskstream-fill") as pool:
        left, running = _split_into_chunks(store, names), list[Future[int]]()
        try:
            for chunk in left:
                running.append(pool.submit(read, chunk))
                if len(running) >= 2 * threads:
                    progress(running.pop(0).result())
            for one in running:
                progress(one.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class CacheFilling:
    """Reads whole files of a store with few threads, until all are read, the store is gone or the interpreter exits.

    An error stops it with a warning, since readers of the same file get the error as well.
    """

    def __init__(self, store: Store, names: Sequence[str]) -> None:
        self._store = weakref.ref(store)
        self._left, self._lock = _split_into_chunks(store, names), threading.Lock()
        self._threads = BEHIND_THREADS
        self.done = threading.Event()
        for _ in range(BEHIND_THREADS):
            threading.Thread(target=self._fill, name="maskstream-fill").start()

    def _fill(self) -> None:
        """Read chunks until none is left. The main thread ends first at exit, which then waits for one chunk only."""
        try:
            while threading.main_thread().is_alive() and (chunk := self._next()) is not None:
                if (store := self._store()) is None:
                    break
                store.read(*chunk)
                del store
        except MaskstreamError as error:
            log.warning("the cache is no longer being filled: %s", error)
        except RuntimeError:  # the interpreter exits, and the store's own threads accept no more work
            pass
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self.done.set()

    def _next(self) -> Range | None:
        with self._lock:
            return next(self._left, None)


def _split_into_chunks(store: Store, names: Sequence[str]) -> Iterator[Range]:
    sizes = [(name, store.size(name)) for name in names]
    for name, size in sizes:
        for at in range(0, size, CHUNK_BYTES):
            yield Range(name, at, min(CHUNK_BYTES, size - at))
