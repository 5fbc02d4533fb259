"""Reads ahead: threads fetch announced ranges, so that readers need not wait for them.

An announcement is a hint. Results and errors are the same without it. Fetched bytes are kept until the batch is
complete, cancelled or failed. So a sampler may announce more than it reads, and a reader never waits for a fetch that
has not started.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from maskstream.shards.errors import StoreError

from .base import UNHEEDED, Announcement, Range, RoutedStore, ShardFile, Store

THREADS = 32
MOST_BYTES = 256 << 20
MOST_SPAN_BYTES = 16 << 20
"""Longest range that is fetched ahead. A reader may need only a part of a longer one, such as an hour of audio."""
NEAR_BYTES = 64 << 10
"""Ranges of one announcement that are at most this many bytes apart are fetched together."""


class PartlyRemoteStore(Store, Protocol):
    """A store in which some ranges are behind a network."""

    def is_near(self, one: Range) -> bool:
        """Return True if a range is read as fast as from a local disk. It never fails."""
        ...

    def of_split(self, shards: Mapping[str, ShardFile], *, outside: bool) -> PartlyRemoteStore:
        """Return the same store with these shards; see `Store.of_split`."""
        ...


class ReadAhead(RoutedStore):
    """A store that fetches announced ranges of another store in the background, unless they are cached locally.

    A reader never waits for a fetch that has not started: it reads by itself, also if a fetch of several ranges failed.
    A pickled copy, and a fork of the process, has its own announcements.

    Args:
        store: Store to read from.
        threads: Most concurrent fetches.
        most_bytes: Most bytes that are fetched and not yet dropped. Further announcements wait.
    """

    def __init__(self, store: PartlyRemoteStore, *, threads: int = THREADS, most_bytes: int = MOST_BYTES) -> None:
        super().__init__(store)
        self._store = store
        self._threads, self._most_bytes = threads, most_bytes
        self._begin()

    def __reduce__(self) -> tuple[Callable[..., ReadAhead], tuple[PartlyRemoteStore, int, int]]:
        return _reading_ahead, (self._store, self._threads, self._most_bytes)

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="maskstream-read")
        self._spans: defaultdict[str, list[_Span]] = defaultdict(list)
        self._waiting: deque[_Span] = deque()
        self._running, self._held_bytes = 0, 0

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset`, from an announced fetch if one holds them."""
        fetching = self._find_fetch(name, offset, size)
        one = Range(name, offset, size)
        return self._store.read(*one) if fetching is None else self._taken(one, *fetching)

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read each range. Ranges that were not announced are read together."""
        fetching = [self._find_fetch(*one) for one in ranges]
        others = [one for one, found in zip(ranges, fetching, strict=True) if found is None]
        read = iter(self._store.read_many(others) if others else ())
        both = zip(ranges, fetching, strict=True)
        return [next(read) if found is None else self._taken(one, *found) for one, found in both]

    def of_split(self, shards: Mapping[str, ShardFile], *, outside: bool) -> Store:
        """Return the underlying store with these shards, wrapped in the same read-ahead."""
        return _reading_ahead(self._store.of_split(shards, outside=outside), self._threads, self._most_bytes)

    def announce(self, ranges: Sequence[Range]) -> Announcement:
        """Fetch the ranges in the background, and keep them until the announcement is dropped."""
        if self._process != os.getpid():
            self._begin()
        remote = [one for one in ranges if not self._store.is_near(one)]
        if not remote:
            return UNHEEDED
        spans = [_Span(one) for one in _merge_ranges(remote) if one.size <= MOST_SPAN_BYTES]
        with self._lock:
            for span in spans:
                self._spans[span.range.name].append(span)
            self._waiting += spans
            self._advance()
        return _Announced(self, spans)

    def drop(self, spans: Iterable[_Span]) -> None:
        """Drop spans. Fetches that have not begun are cancelled."""
        with self._lock:
            for span in spans:
                if span.dropped:
                    continue
                span.dropped = True
                mine = self._spans[span.range.name]
                mine.remove(span)
                if not mine:
                    del self._spans[span.range.name]
                if span.future is not None:
                    self._held_bytes -= span.range.size
            self._advance()

    def _find_fetch(self, name: str, offset: int, size: int) -> tuple[int, Future[bytes]] | None:
        """Return the first byte and the contents of a started fetch that covers these bytes, or None."""
        if self._process != os.getpid():
            return None
        with self._lock:
            for span in self._spans.get(name, ()):
                _, begin, length = span.range
                if begin <= offset and offset + size <= begin + length and span.future is not None:
                    return begin, span.future
        return None

    def _taken(self, one: Range, begin: int, fetch: Future[bytes]) -> bytes:
        """Return a range from a fetch that begins at byte `begin`. If it failed, read the range alone: another may be
        at fault.
        """
        try:
            data = fetch.result()
        except StoreError:
            return self._store.read(*one)
        return data[one.offset - begin : one.offset - begin + one.size]

    def _advance(self) -> None:
        """Begin the next fetches while there is room. The lock must be held.

        The pool gets no more fetches than it has threads, so an exit waits for these only.
        """
        while self._waiting and self._running < self._threads:
            span = self._waiting[0]
            if span.dropped:
                self._waiting.popleft()
                continue
            if self._held_bytes + span.range.size > self._most_bytes and self._held_bytes:
                return
            try:
                span.future = self._pool.submit(self._fetch, span.range)
            except RuntimeError:  # the interpreter exits
                return
            self._waiting.popleft()
            self._running += 1
            self._held_bytes += span.range.size

    def _fetch(self, wanted: Range) -> bytes:
        try:
            return self._store.read(*wanted)
        finally:
            with self._lock:
                self._running -= 1
                self._advance()


class _Span:
    """A range to fetch; `future` is None until the fetch begins."""

    __slots__ = ("dropped", "future", "range")

    def __init__(self, wanted: Range) -> None:
        self.range = wanted
        self.future: Future[bytes] | None = None
        self.dropped = False


class _Announced:
    """Announcement of some spans."""

    def __init__(self, ahead: ReadAhead, spans: list[_Span]) -> None:
        self._ahead, self._spans = ahead, spans

    def drop(self) -> None:
        """Release the ranges."""
        self._ahead.drop(self._spans)


def _merge_ranges(ranges: Sequence[Range]) -> list[Range]:
    """Return the sorted ranges, with nearby ones merged."""
    merged: list[Range] = []
    for one in sorted(ranges):
        if not one.size:
            continue
        if merged and merged[-1].name == one.name:
            last = merged[-1]
            end = max(last.offset + last.size, one.offset + one.size)
            if one.offset <= last.offset + last.size + NEAR_BYTES and end - last.offset <= MOST_SPAN_BYTES:
                merged[-1] = Range(one.name, last.offset, end - last.offset)
                continue
        merged.append(one)
    return merged


def _reading_ahead(store: PartlyRemoteStore, threads: int, most_bytes: int) -> ReadAhead:
    return ReadAhead(store, threads=threads, most_bytes=most_bytes)
