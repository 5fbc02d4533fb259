"""Where the files of sources are: on a disk, at a URL or in archives, from which a task fetches what it encodes.

FFmpeg and the other libraries get local files only. So a task that encodes from a URL or an archive fetches the files
of a source into a temporary folder, those of the next source meanwhile, and deletes them after.
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
    """What a task has at hand: the files of the source that it encodes; here as they are on this machine."""

    def located(self, source: Source) -> Source:
        """The source with the paths that its files have here."""
        return source

    def read(self, path: Path) -> FileState:
        """Read a file of a located source whole, which brings it here. Raises OSError or OutageError if it cannot."""
        return read_state(path)

    def expect(self, source: Source) -> None:
        """Begin to read what the next source needs."""

    def release(self, source: Source, following: Source | None) -> tuple[Path, ...]:
        """The source is done: returns the files that are not here any more. `following` is still to be encoded."""
        return ()


@dataclass(frozen=True, slots=True)
class RawFiles:
    """The files of a dataset's sources, on this machine or a file system that it has mounted. It is small and frozen,
    because every task carries it to its process.
    """

    def at_hand(self) -> AbstractContextManager[Hand]:
        """What a task has at hand during the block."""
        return nullcontext(Hand())

    def is_same(self, path: Path, state: FileState) -> bool:
        """Whether the file has these bytes, which are read only if it is not as old. Raises OSError or OutageError if
        it cannot be read.
        """
        return state.matches(path)


LOCAL = RawFiles()


class FetchedFiles(Protocol):
    """Files that a task fetches. `tree` is the folder that all paths of those files are below."""

    @property
    def tree(self) -> Path: ...

    def is_away(self, path: Path) -> bool:
        """Whether a file must be fetched; others are read where they are."""
        ...

    def fetch(self, path: Path, to: Path | None) -> FileState:
        """Fetch the file of a path to the path `to`, or only read it; it keeps its age.

        Raises OutageError if it cannot be read.
        """
        ...


@contextmanager
def fetching(files: FetchedFiles) -> Iterator[Hand]:
    """What a task has at hand that fetches: a temporary folder, and a thread that fetches ahead."""
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
    """Whether a file has these bytes, by the size and age that were `found` in its listing, or else by its bytes."""
    if found[0] != state.size_bytes:
        return False
    return found[1] == state.mtime_ns or files.fetch(path, None).xxh3_64 == state.xxh3_64


@dataclass(frozen=True, slots=True)
class UrlFiles(RawFiles):
    """Files at a URL. A path is one of the local tree at `tree`, where an empty file stands for each (`tree.py`);
    only the process that lists the sources has it.
    """

    url: str
    tree: Path

    def at_hand(self) -> AbstractContextManager[Hand]:
        """A temporary folder, and a thread that fetches ahead."""
        return fetching(self)

    def is_away(self, path: Path) -> bool:
        """All are."""
        return True

    def is_same(self, path: Path, state: FileState) -> bool:
        """Whether the file has these bytes."""
        found = path.stat()
        return is_same_file(self, path, (found.st_size, found.st_mtime_ns), state)

    def fetch(self, path: Path, to: Path | None) -> FileState:
        """Fetch the file of a path of the tree to the path `to`, or only read it; it gets the age that it has at the
        URL. Raises OutageError if it cannot be read.
        """
        from .url import fetched

        return fetched(self.url, path.relative_to(self.tree).as_posix(), to)


class _Fetched(Hand):
    """The hand of a task: a folder that has the files of the current source, and soon those of the next one. It deletes
    only what it made itself.
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
            raise DatasetError(f"{path} leads out of the raw data; take it out of the list that names it")
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
    """Whether the files of a source have these states. `known` keeps what was found, for sources may share a file.

    Raises OutageError if one cannot be read.
    """
    if len(files) != len(source.files):
        return False
    for path, state in zip(source.files, files, strict=True):
        try:
            known[path, state] = known[path, state] if (path, state) in known else raw.is_same(path, state)
        except OSError as error:
            raise OutageError(
                f"the source {source.id!r} cannot be read ({path}: {error.strerror}); mend this and run the same "
                "command again"
            ) from error
        if not known[path, state]:
            return False
    return True
