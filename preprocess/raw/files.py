"""Locations of source files: a disk, a URL or archives, from which a task fetches its inputs.

FFmpeg and the other libraries receive only local files. A task that encodes from a URL or an archive therefore fetches
the files of a source into a temporary folder, prefetches the files of the next source, and deletes them afterwards.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError, OutageError
from maskstream.shards.reach import is_inside

from .file_state import FileState, read_state
from .scratch import Scratch


class Hand:
    """Provides the local files of the source that a task encodes; here, files on this machine."""

    def located(self, source: Source) -> Source:
        """Return the source with the local paths of its files."""
        return source

    def read(self, path: Path) -> FileState:
        """Read a whole file of a located source, fetching it if needed. Raises OSError or OutageError on failure."""
        return read_state(path)

    def expect(self, source: Source) -> None:
        """Start fetching the files of the next source."""

    def release(self, source: Source, following: Source | None) -> tuple[Path, ...]:
        """Finish a source and return the files that were removed. `following` is still to be encoded."""
        return ()


@dataclass(frozen=True, slots=True)
class RawFiles:
    """Files of a dataset's sources, on this machine or a mounted file system.

    It is small and frozen, because every task carries it to its process.
    """

    def at_hand(self) -> AbstractContextManager[Hand]:
        """Return a context that provides local files to a task."""
        return nullcontext(Hand())

    def is_same(self, path: Path, state: FileState) -> bool:
        """Return whether the file has these bytes, which are read only if its modification time differs.

        Raises:
            OSError: The file cannot be read.
            OutageError: Its storage cannot be reached.
        """
        return state.matches(path)


LOCAL = RawFiles()


class FetchedFiles(Protocol):
    """Files that a task fetches; the paths of all of them are below the folder `tree`."""

    @property
    def tree(self) -> Path: ...

    def is_away(self, path: Path) -> bool:
        """Return whether a file must be fetched; others are read in place."""
        ...

    def fetch(self, path: Path, to: Path | None) -> FileState:
        """Fetch a file to the path `to`, with its modification time, or only read it. Raises OutageError if it cannot
        be read.
        """
        ...


@contextmanager
def fetching(files: FetchedFiles) -> Iterator[Hand]:
    """Provide files to a task from a temporary folder and a thread that prefetches."""
    scratch = Scratch()
    try:
        with ThreadPoolExecutor(1, "raw files") as pool:
            try:
                yield _Fetched(files, scratch.folder, pool)
            finally:
                pool.shutdown(cancel_futures=True)
    finally:
        scratch.close()


def is_same_file(files: FetchedFiles, path: Path, found: tuple[int, int], state: FileState) -> bool:
    """Return whether a file has these bytes, judged by the size and time `found` in its listing, or else its bytes."""
    if found[0] != state.size_bytes:
        return False
    return found[1] == state.mtime_ns or files.fetch(path, None).xxh3_64 == state.xxh3_64


@dataclass(frozen=True, slots=True)
class UrlFiles(RawFiles):
    """Files at a URL.

    Their paths are in the local tree `tree`, which has an empty placeholder for each file (`tree.py`). Only the process
    that lists the sources has this tree.
    """

    url: str
    tree: Path

    def at_hand(self) -> AbstractContextManager[Hand]:
        """Provide files from a temporary folder and a thread that prefetches."""
        return fetching(self)

    def is_away(self, path: Path) -> bool:
        """Return True: all files must be fetched."""
        return True

    def is_same(self, path: Path, state: FileState) -> bool:
        """Return whether the file has these bytes."""
        found = path.stat()
        return is_same_file(self, path, (found.st_size, found.st_mtime_ns), state)

    def fetch(self, path: Path, to: Path | None) -> FileState:
        """Fetch a file of the tree to the path `to`, with its modification time at the URL, or only read it.

        Raises:
            OutageError: The file cannot be read.
        """
        from .url import fetched

        return fetched(self.url, path.relative_to(self.tree).as_posix(), to)


class _Fetched(Hand):
    """Provides files from a folder with the files of the current source, and soon of the next one.

    It deletes only files that it created.
    """

    def __init__(self, files: FetchedFiles, folder: Path, pool: ThreadPoolExecutor) -> None:
        self._files = files
        self._folder = folder
        self._pool = pool
        self._coming: dict[Path, Future[FileState]] = {}
        self._made: set[Path] = set()

    def located(self, source: Source) -> Source:
        if source.computed:
            return source
        path, *parts = map(self._here, source.files)
        return replace(source, path=path, parts=tuple(parts))

    def _here(self, path: Path) -> Path:
        if not self._files.is_away(path):
            return path
        name = path.relative_to(self._files.tree).as_posix()
        if not is_inside(name):
            raise DatasetError(f"{path} points outside the raw data; remove it from the list that contains it")
        return self._folder / name

    def _is_own(self, path: Path) -> bool:
        return path.is_relative_to(self._folder)

    def read(self, path: Path) -> FileState:
        if not self._is_own(path):
            return read_state(path)
        coming = self._coming.pop(path, None)
        return self._fetch(path) if coming is None else coming.result()

    def _fetch(self, path: Path) -> FileState:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._made.add(path)
        return self._files.fetch(self._files.tree / path.relative_to(self._folder), path)

    def expect(self, source: Source) -> None:
        for path in self.located(source).files:
            if self._is_own(path) and path not in self._coming and not path.exists():
                self._coming[path] = self._pool.submit(self._fetch, path)

    def release(self, source: Source, following: Source | None) -> tuple[Path, ...]:
        wanted = () if following is None else self.located(following).files
        gone = tuple(path for path in self.located(source).files if path in self._made and path not in wanted)
        for path in gone:
            path.unlink(missing_ok=True)
            self._made.discard(path)
        return gone


def is_same(
    source: Source, files: Sequence[FileState], raw: RawFiles, known: dict[tuple[Path, FileState], bool]
) -> bool:
    """Return whether the files of a source have these states.

    Args:
        source: Source.
        files: Expected state of each of its files.
        raw: Location of the files.
        known: Results so far, since sources may share a file; updated.

    Raises:
        OutageError: A file cannot be read.
    """
    if len(files) != len(source.files):
        return False
    for path, state in zip(source.files, files, strict=True):
        try:
            known[path, state] = known[path, state] if (path, state) in known else raw.is_same(path, state)
        except OSError as error:
            raise OutageError(
                f"the source {source.id!r} cannot be read ({path}: {error.strerror}); fix this and run the same "
                "command again"
            ) from error
        if not known[path, state]:
            return False
    return True
