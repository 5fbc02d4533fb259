"""Fills the cache of a node with whole shards: at once, with the progress told, or behind a loader's back."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from maskstream.shards.errors import MaskstreamError

from .base import Range, Store

log = logging.getLogger(__name__)

CHUNK_BYTES = 8 << 20
THREADS = 16
BEHIND_THREADS = 2
"""Threads that fill while a loader reads, whose requests come first."""


def fill(store: Store, names: Sequence[str], progress: Callable[[int], None], *, threads: int = THREADS) -> None:
    """Read whole files of a store that has a cache; `progress` is told the bytes of each part that is in the cache.

    Raises the errors of the store.
    """

    def read(chunk: Range) -> int:
        return len(store.read(*chunk))

    with ThreadPoolExecutor(threads, thread_name_prefix="maskstream-fill") as pool:
        left, running = _chunks(store, names), list[Future[int]]()
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


class Filling:
    """Reads whole files of a store with few threads, until all are read, the store is gone or the interpreter exits.

    An error ends it with a warning: who reads the file meets it too.
    """

    def __init__(self, store: Store, names: Sequence[str]) -> None:
        self._store = weakref.ref(store)
        self._left = _chunks(store, names)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(BEHIND_THREADS, thread_name_prefix="maskstream-fill")
        self._threads = BEHIND_THREADS
        self.done = threading.Event()
        for _ in range(BEHIND_THREADS):
            self._next()

    def _next(self) -> None:
        """Submits the next chunk. The pool never has more than its threads do, so an exit waits for no more."""
        with self._lock:
            chunk = next(self._left, None)
        try:
            if chunk is None or self._store() is None:
                raise StopIteration
            self._pool.submit(self._read, chunk)
        except (StopIteration, RuntimeError):  # the interpreter exits
            self._end()

    def _read(self, chunk: Range) -> None:
        store = self._store()
        try:
            if store is not None:
                store.read(*chunk)
        except MaskstreamError as error:
            log.warning("the cache is filled no further: %s", error)
            self._end()
            return
        finally:
            del store
        self._next()

    def _end(self) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self.done.set()
                self._pool.shutdown(wait=False)


def _chunks(store: Store, names: Sequence[str]) -> Iterator[Range]:
    sizes = [(name, store.size(name)) for name in names]
    for name, size in sizes:
        for at in range(0, size, CHUNK_BYTES):
            yield Range(name, at, min(CHUNK_BYTES, size - at))
