"""The tree of raw data of which some is in archives: an archive counts as unpacked in the folder where it lies.

The tree is a temporary one. An empty file stands for each member, with its size and age; only lists (csv, json, text)
are copied out. Links lead to the files beside the archives. So datasets list the same sources as from unpacked data.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from maskstream.shards.errors import DatasetError, OutageError

from .archive import ENDINGS, is_archive, pieces
from .archive_list import OpenArchives, listed_archive, members_of
from .archived_files import member_path
from .file_state import set_age
from .member import ArchiveMember
from .parquet_rows import SUFFIX

log = logging.getLogger(__name__)

_MAX_LIST_BYTES = 1 << 30
_THREADS = 8


def archives_below(root: Path) -> tuple[tuple[Path, ...], bool]:
    """The archives below a folder, sorted, and whether there are Parquet files. A folder that is not there has none.

    As in `media_paths`, links are followed, each real folder is visited once, and hidden ones are left out. But of
    other files only the names are looked at, for there may be millions.
    """
    found: set[Path] = set()
    has_rows = False
    visited: set[tuple[int, int]] = set()
    todo = [str(root)] if root.is_dir() else []
    while todo:
        links: list[str] = []
        for folder, folders, names in (one for start in todo for one in os.walk(start, onerror=_unlisted)):
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
        _unlisted(error)
    return facts.st_dev, facts.st_ino


def _unlisted(error: OSError) -> NoReturn:
    raise OutageError(
        f"{error.filename} cannot be listed ({error.strerror}); make it readable and run the same command again"
    ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchivedTree:
    """A temporary folder that looks like `root` with its archives unpacked. `addresses`: the path of each member.
    `damage`: what is damaged, by the archive's path from the root.
    """

    root: Path
    folder: Path
    addresses: Mapping[Path, Path]
    damage: Mapping[str, str]

    @classmethod
    def make(
        cls, root: Path, archives: Sequence[Path], folder: Path, lists: frozenset[str], *, damaged: bool = False
    ) -> ArchivedTree:
        """Make it in an empty folder; files with the suffixes `lists` are copied out of the archives.

        A file that is unpacked too is taken as it is, and of several archives the first one counts. Raises DatasetError
        if they do not agree in its size, and for archives that are damaged, unless they may be `damaged`.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            members = list(pool.map(partial(members_of, damaged=damaged), archives))
        damage = {archive.relative_to(root).as_posix(): listed_archive(archive).damage for archive in archives}
        places = [archive.parent.relative_to(root) for archive in archives]
        merged = {Path(), *places, *(parent for place in places for parent in place.parents)}
        for place, held in zip(places, members, strict=True):
            merged |= {parent for name in held for parent in _parents(place / name)}
        _mirror(root, folder, merged, {piece for archive in archives for piece in pieces(archive)}, root)
        addresses: dict[Path, Path] = {}
        with closing(OpenArchives()) as opened:
            for archive, place, held in zip(archives, places, members, strict=True):
                for name, member in held.items():
                    path = folder / place / name
                    if _is_new(path, member, addresses, archive):
                        addresses[path] = member_path(archive.absolute(), name)
                        _stand_in(path, member, archive, opened if path.suffix.lower() in lists else None)
        found = {name: what for name, what in damage.items() if what}
        for name, what in found.items():
            log.warning("%s is damaged (%s); it is read as far as it can be", root / name, what)
        return cls(root=root, folder=folder, addresses=addresses, damage=found)

    def real(self, path: Path) -> Path:
        """The path that a file of the folder really has."""
        if path in self.addresses:
            return self.addresses[path]
        return self.root.absolute() / path.relative_to(self.folder) if path.is_relative_to(self.folder) else path


def _parents(path: Path) -> list[Path]:
    return list(path.parents)[:-1]


def _mirror(real: Path, mirror: Path, merged: set[Path], left_out: set[Path], root: Path) -> None:
    """Make links in `mirror` to what is in the folder `real`; folders that members are in too are made anew."""
    with os.scandir(real) as entries:
        for entry in entries:
            path = real / entry.name
            if path in left_out:
                continue
            if path.relative_to(root) in merged and entry.is_dir():
                (mirror / entry.name).mkdir()
                _mirror(path, mirror / entry.name, merged, left_out, root)
            else:
                (mirror / entry.name).symlink_to(path.absolute())


def _is_new(path: Path, member: ArchiveMember, addresses: Mapping[Path, Path], archive: Path) -> bool:
    """Whether nothing stands at the path of a member yet. Raises DatasetError if something else does."""
    try:
        size_bytes = path.stat().st_size
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        size_bytes = -1
    if size_bytes != member.size_bytes or path.is_dir():
        other = addresses.get(path, "a file that is unpacked")
        raise DatasetError(
            f"{member_path(archive, member.name)} and {other} have the same place and are not the same; remove one"
        )
    return False


def _stand_in(path: Path, member: ArchiveMember, archive: Path, opened: OpenArchives | None) -> None:
    """Make the file that stands for a member, or copy the member if there is where to copy it from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if opened is None:
        path.touch()
        os.truncate(path, member.size_bytes)
    elif member.size_bytes > _MAX_LIST_BYTES:
        raise DatasetError(f"{member_path(archive, member.name)} has more than {_MAX_LIST_BYTES} bytes; is it a list?")
    else:
        opened.copy(archive, member.name, path)
    set_age(path, member.mtime_ns)
