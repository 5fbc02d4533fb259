"""Sources in archives: a member has the path ARCHIVE!/NAME, such as /raw/train/part_0.tar.gz!/abc_000001_000011.mp4.
Rows of Parquet files are members too (`parquet_rows.py`).

A task copies a member into a temporary folder while it encodes the one before it. So no archive is unpacked, and a run
that was killed does only the shards again that it had not written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .archive import is_archive
from .archive_list import OpenArchives, members_of
from .file_state import DamagedFileError, FileState, set_age
from .files import Hand, RawFiles, fetching, is_same_file
from .parquet_rows import SUFFIX

MARK = "!"
_ROOT = Path("/")


def member_path(archive: Path, name: str) -> Path:
    """The path of a member of an archive."""
    return archive.with_name(archive.name + MARK) / name


def archive_and_name(path: Path) -> tuple[Path, str] | None:
    """The archive of a path, and the name in it; None if it is the path of a plain file. A name in an archive may look
    like another archive.
    """
    for folder in reversed(path.parents):
        if not folder.name.endswith(MARK):
            continue
        archive = folder.with_name(folder.name.removesuffix(MARK))
        if is_archive(archive) or archive.suffix == SUFFIX:
            return archive, path.relative_to(folder).as_posix()
    return None


@dataclass(frozen=True, slots=True)
class ArchivedFiles(RawFiles):
    """Files of this machine, some of them in archives. All paths are absolute. `unpacked`: the folder for groups of
    rows of Parquet files, which lives as long as the job.
    """

    unpacked: Path | None = None

    @contextmanager
    def at_hand(self) -> Iterator[Hand]:
        """A temporary folder, and a thread that copies the next member."""
        with closing(OpenArchives(self.unpacked)) as archives, fetching(_Members(archives)) as hand:
            yield hand

    def is_same(self, path: Path, state: FileState) -> bool:
        """Whether the file has these bytes, by the size and age in the list of its archive, or else by its bytes."""
        found = archive_and_name(path)
        if found is None:
            return state.is_of(path)
        archive, name = found
        if archive.suffix == SUFFIX:
            return self._is_same_row(path, archive.stat().st_mtime_ns, state)
        if (member := members_of(archive, damaged=True).get(name)) is None:
            return False
        with closing(OpenArchives()) as archives:
            try:
                return is_same_file(_Members(archives), path, (member.size_bytes, member.mtime_ns), state)
            except DamagedFileError as error:
                return error.state.xxh3_64 == state.xxh3_64

    def _is_same_row(self, path: Path, mtime_ns: int, state: FileState) -> bool:
        """Whether a row has these bytes, which are read only if its file is not as old; it does not say how many."""
        if mtime_ns == state.mtime_ns:
            return True
        with closing(OpenArchives(self.unpacked)) as archives:
            try:
                return _Members(archives).fetch(path, None).xxh3_64 == state.xxh3_64
            except DamagedFileError as error:
                return error.state.xxh3_64 == state.xxh3_64


@dataclass(frozen=True, slots=True)
class _Members:
    """What a task reads members with."""

    archives: OpenArchives
    tree: Path = _ROOT

    def is_away(self, path: Path) -> bool:
        return archive_and_name(path) is not None

    def fetch(self, path: Path, to: Path | None) -> FileState:
        found = archive_and_name(path)
        assert found is not None
        member, digest = self.archives.copy(*found, to)
        if to is not None:
            set_age(to, member.mtime_ns)
        return FileState(size_bytes=member.size_bytes, mtime_ns=member.mtime_ns, xxh3_64=digest)
