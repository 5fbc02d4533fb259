"""Local tree that a dataset's function lists: the raw data themselves, or placeholders for data at a URL or in
archives.

Datasets only read names, sizes and lists. For a URL, all files are listed once, and the tree contains empty files of
the same names, sizes and modification times; only lists (csv, json, text) are fetched. Tasks fetch the rest
(`files.py`).

Archives are treated as unpacked in the folder that contains them. The tree is temporary and has an empty file of the
right size and time for each member; only lists are extracted, and links lead to the files next to the archives.
Datasets therefore list the same sources as from unpacked data.

A source in an archive has the path ARCHIVE!/NAME, such as /raw/train/part_0.tar.gz!/abc_000001_000011.mp4. Rows of
Parquet files are members too (`parquet_rows.py`). A task copies a member into a temporary folder while it encodes the
previous one. So no archive is unpacked, and a killed run repeats only unfinished shards.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from maskstream.shards.errors import DatasetError, OutageError
from maskstream.shards.stores.url import is_url

from .archive import ENDINGS, is_archive, pieces
from .archive_list import OpenArchives, list_archive, list_members
from .file_state import DamagedFileError, FileState, set_age
from .files import LOCAL, Hand, RawFiles, UrlFiles, fetching, is_same_file
from .lists import MAX_LISTED_BYTES
from .members import ArchiveMember
from .parquet_rows import SUFFIX
from .scratch import Scratch

if TYPE_CHECKING:
    from .url import RawFile

MARK = "!"
_ROOT = Path("/")


def join_member_path(archive: Path, name: str) -> Path:
    """Return the path of a member of an archive."""
    return archive.with_name(archive.name + MARK) / name


def split_archive_path(path: Path) -> tuple[Path, str] | None:
    """Split a member's path into its archive and the name in it; None for a plain file.

    A name in an archive may look like another archive.
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
    """Files on this machine, some of them in archives. All paths are absolute.

    Attributes:
        unpacked: Folder for row groups of Parquet files, which lives as long as the job.
    """

    unpacked: Path | None = None

    @contextmanager
    def at_hand(self) -> Iterator[Hand]:
        """Provide files from a temporary folder and a thread that copies the next member."""
        with closing(OpenArchives(self.unpacked)) as archives, fetching(_Members(archives)) as hand:
            yield hand

    def is_same(self, path: Path, state: FileState) -> bool:
        """Return whether the file has these bytes, judged by the size and time in its archive's listing, or else by its
        bytes.
        """
        found = split_archive_path(path)
        if found is None:
            return state.matches(path)
        archive, name = found
        if archive.suffix == SUFFIX:
            return self._is_same_row(path, archive.stat().st_mtime_ns, state)
        if (member := list_members(archive, damaged=True).get(name)) is None:
            return False
        with closing(OpenArchives()) as archives:
            try:
                return is_same_file(_Members(archives), path, (member.size_bytes, member.mtime_ns), state)
            except DamagedFileError as error:
                return error.state.xxh3_64 == state.xxh3_64

    def _is_same_row(self, path: Path, mtime_ns: int, state: FileState) -> bool:
        """Return whether a row has these bytes. They are read only if its file's time differs, since Parquet does not
        record their number.
        """
        if mtime_ns == state.mtime_ns:
            return True
        with closing(OpenArchives(self.unpacked)) as archives:
            try:
                return _Members(archives).fetch(path, None).xxh3_64 == state.xxh3_64
            except DamagedFileError as error:
                return error.state.xxh3_64 == state.xxh3_64


@dataclass(frozen=True, slots=True)
class _Members:
    """Fetches members of archives for a task."""

    archives: OpenArchives
    tree: Path = _ROOT

    def is_away(self, path: Path) -> bool:
        return split_archive_path(path) is not None

    def fetch(self, path: Path, to: Path | None) -> FileState:
        found = split_archive_path(path)
        assert found is not None
        member, digest = self.archives.copy(*found, to)
        if to is not None:
            set_age(to, member.mtime_ns)
        return FileState(size_bytes=member.size_bytes, mtime_ns=member.mtime_ns, xxh3_64=digest)


log = logging.getLogger(__name__)

_THREADS = 8


def find_archives(root: Path) -> tuple[tuple[Path, ...], bool]:
    """Return the archives below a folder, sorted, and whether there are Parquet files; none for a missing folder.

    As in `list_media`, links are followed, each real folder is visited once, and hidden ones are skipped. Other files
    are not opened or stat'ed, since there may be millions.
    """
    found: set[Path] = set()
    has_rows = False
    visited: set[tuple[int, int]] = set()
    todo = [str(root)] if root.is_dir() else []
    while todo:
        links: list[str] = []
        for folder, folders, names in (one for start in todo for one in os.walk(start, onerror=_describe_unlisted)):
            if (identity := _identity(folder)) in visited:
                folders.clear()
                continue
            visited.add(identity)
            folders[:] = [name for name in folders if not name.startswith(".")]
            links += [path for name in folders if os.path.islink(path := os.path.join(folder, name))]
            has_rows = has_rows or any(name.endswith(SUFFIX) for name in names)
            alike = (name for name in names if name[-1] == "0" or name.lower().endswith(ENDINGS))
            found |= {Path(folder, name) for name in alike if is_archive(Path(name)) and not name.startswith(".")}
        todo = sorted(links)
    return tuple(sorted(found)), has_rows


def _identity(folder: str) -> tuple[int, int]:
    try:
        facts = os.stat(folder)
    except OSError as error:
        _describe_unlisted(error)
    return facts.st_dev, facts.st_ino


def _describe_unlisted(error: OSError) -> NoReturn:
    raise OutageError(
        f"{error.filename} cannot be listed ({error.strerror}); make it readable and run the same command again"
    ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchivedTree:
    """Temporary folder that looks like `root` with its archives unpacked.

    Attributes:
        root: Folder of the raw data.
        folder: The temporary folder.
        addresses: Path of each member.
        damage: Damage of each archive, by its path from the root.
    """

    root: Path
    folder: Path
    addresses: Mapping[Path, Path]
    damage: Mapping[str, str]

    @classmethod
    def make(
        cls, root: Path, archives: Sequence[Path], folder: Path, lists: frozenset[str], *, damaged: bool = False
    ) -> ArchivedTree:
        """Create the tree in an empty folder; files with the suffixes `lists` are extracted.

        A file that also exists unpacked is read from there. If several archives contain the same file, the first one is
        used.

        Raises:
            DatasetError: Such files differ in size, or an archive is damaged and `damaged` is False.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            members = list(pool.map(partial(list_members, damaged=damaged), archives))
        damage = {archive.relative_to(root).as_posix(): list_archive(archive).damage for archive in archives}
        places = [archive.parent.relative_to(root) for archive in archives]
        merged = {Path(), *places, *(parent for place in places for parent in place.parents)}
        for place, held in zip(places, members, strict=True):
            merged |= {parent for name in held for parent in [*(place / name).parents][:-1]}
        _link_mirror(root, folder, merged, {piece for archive in archives for piece in pieces(archive)}, root)
        addresses: dict[Path, Path] = {}
        with closing(OpenArchives()) as opened:
            for archive, place, held in zip(archives, places, members, strict=True):
                for name, member in held.items():
                    path = folder / place / name
                    if _is_new(path, member, addresses, archive):
                        addresses[path] = join_member_path(archive.absolute(), name)
                        _make_stand_in(path, member, archive, opened if path.suffix.lower() in lists else None)
        found = {name: what for name, what in damage.items() if what}
        for name, what in found.items():
            log.warning("%s is damaged (%s); reading as much of it as possible", root / name, what)
        return cls(root=root, folder=folder, addresses=addresses, damage=found)

    def real(self, path: Path) -> Path:
        """Return the real path behind a path in the folder."""
        if path in self.addresses:
            return self.addresses[path]
        return self.root.absolute() / path.relative_to(self.folder) if path.is_relative_to(self.folder) else path


def _link_mirror(real: Path, mirror: Path, merged: set[Path], left_out: set[Path], root: Path) -> None:
    """Link the entries of the folder `real` in `mirror`. Folders that also contain members are created instead."""
    with os.scandir(real) as entries:
        for entry in entries:
            path = real / entry.name
            if path in left_out:
                continue
            if path.relative_to(root) in merged and entry.is_dir():
                (mirror / entry.name).mkdir()
                _link_mirror(path, mirror / entry.name, merged, left_out, root)
            else:
                (mirror / entry.name).symlink_to(path.absolute())


def _is_new(path: Path, member: ArchiveMember, addresses: Mapping[Path, Path], archive: Path) -> bool:
    """Return whether the path of a member is still free. Raises DatasetError if something else occupies it."""
    try:
        size_bytes = path.stat().st_size
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        size_bytes = -1
    if size_bytes != member.size_bytes or path.is_dir():
        other = addresses.get(path, "a file that is unpacked")
        raise DatasetError(
            f"{join_member_path(archive, member.name)} and {other} have the same path but differ; remove one"
        )
    return False


def _make_stand_in(path: Path, member: ArchiveMember, archive: Path, opened: OpenArchives | None) -> None:
    """Create the placeholder for a member, or extract the member if its archive is `opened`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if opened is None:
        path.touch()
        os.truncate(path, member.size_bytes)
    elif member.size_bytes > MAX_LISTED_BYTES:
        raise DatasetError(
            f"{join_member_path(archive, member.name)} has more than {MAX_LISTED_BYTES} bytes; is it a list?"
        )
    else:
        opened.copy(archive, member.name, path)
    set_age(path, member.mtime_ns)


LISTS = frozenset({"", ".csv", ".json", ".jsonl", ".list", ".lst", ".tsv", ".txt", ".xml", ".yaml", ".yml"})
"""Suffixes of files that datasets read to list their sources."""


@dataclass(frozen=True, slots=True)
class RawTree:
    """A folder with the names of all raw files, the location of the files, and the archives among them."""

    root: str
    folder: Path
    files: RawFiles
    archives: tuple[Path, ...] = ()
    outside_root: bool = False
    damaged: bool = False


@contextmanager
def open_raw_tree(
    root: str | Path, *, lists: Collection[str] = (), outside_root: bool = False, damaged: bool = False
) -> Iterator[RawTree]:
    """Provide the tree of the raw data at a local path or URL; it may be temporary.

    Args:
        root: Local folder or URL.
        lists: Suffixes of the dataset's lists. If ".parquet" is one, Parquet files at a URL are fetched if they are in
            the root or called `metadata`.
        outside_root: Whether lists and links may refer to files outside a local root.
        damaged: Whether to read damaged archives as far as possible.

    Raises:
        ValueError: The URL is not allowed.
        OutageError: The data cannot be listed.
    """
    if outside_root and is_url(root):
        raise ValueError(f"a list at {root} only lists files there; leave out --outside-root")
    if not is_url(root):
        archives, has_rows = find_archives(Path(root))
        if not archives and not has_rows:
            yield RawTree(str(root), Path(root), LOCAL, outside_root=outside_root)
            return
        with closing(Scratch()) as scratch:
            yield RawTree(str(root), Path(root), ArchivedFiles(scratch.folder), archives, outside_root, damaged)
        return
    from .url import THREADS, listed

    url = str(root).rstrip("/")
    with closing(Scratch()) as scratch:
        files = UrlFiles(url, scratch.folder)
        wanted = []
        for file in listed(url):
            path = scratch.folder / file.name
            if path.suffix.lower() in LISTS or (SUFFIX in lists and _is_maybe_list(path, file, scratch.folder)):
                wanted.append(path)
            _make_stand_in_of_url(path, url, file)
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(lambda path: files.fetch(path, path), wanted):
                pass
        yield RawTree(url, scratch.folder, files)


def _is_maybe_list(path: Path, file: RawFile, root: Path) -> bool:
    """Return whether a Parquet file has the location and name of a list. Others contain media and may be large."""
    is_placed = path.parent == root or path.stem == "metadata"
    return path.suffix.lower() == SUFFIX and is_placed and file.size_bytes <= MAX_LISTED_BYTES


def _make_stand_in_of_url(path: Path, url: str, file: RawFile) -> None:
    """Create the placeholder for a file at a URL: a sparse file of the same size and time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
    except (FileExistsError, NotADirectoryError) as error:
        raise DatasetError(f"{url} contains {file.name!r} both as a file and as a folder; rename one") from error
    os.truncate(path, file.size_bytes)
    set_age(path, file.mtime_ns)
