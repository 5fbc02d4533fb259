"""Cache of archive listings, so that a compressed tar is read in full only once.

The folder `archives` of the cache folder has one file per tar with its members, and the index of its gzip stream. They
are named by a checksum of the tar's path, sizes and modification times. The folder may be deleted at any time.
"""

import fcntl
import json
import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

import xxhash

from maskstream.shards.errors import DatasetError, OutageError, StoreError
from maskstream.shards.format.index_cache import CACHE, cache_folder
from maskstream.shards.own_folder import make_own_folder
from maskstream.shards.stores.local_files import publishing

from .archive import Archive, pieces
from .file_state import read_state
from .members import ArchiveMember
from .parquet_rows import SUFFIX, ParquetRows
from .scratch import Scratch

log = logging.getLogger(__name__)

_OPEN = 8
"""Number of archives that stay open."""


@dataclass(frozen=True, slots=True)
class Listed:
    """Listing of an archive.

    Attributes:
        members: Members by name.
        index: Index of its gzip stream, if there is one.
        damage: Description of its damage; "" if it is intact.
    """

    members: dict[str, ArchiveMember]
    index: Path | None
    damage: str


def list_members(path: Path, *, damaged: bool = False) -> dict[str, ArchiveMember]:
    """List the members of an archive by name (see `Archive.contents`).

    Args:
        path: Archive.
        damaged: Whether to list the readable members of a damaged archive.

    Raises:
        DatasetError: The archive is damaged or not accepted.
        OutageError: The archive cannot be read, or the cache folder cannot be written.
    """
    found = list_archive(path)
    if found.damage and not damaged:
        raise DatasetError(
            f"{path} is damaged, or not an archive ({found.damage}); download it again, or keep what can be read with "
            '--damage keep (damage="keep")'
        )
    return found.members


class OpenArchives:
    """Archives that are read member by member; the most recent ones stay open. Threads take turns.

    Row groups are unpacked into the folder `unpacked`, or into a temporary one.
    """

    def __init__(self, unpacked: Path | None = None) -> None:
        self._unpacked = unpacked
        self._scratch: Scratch | None = None
        self._rows: ParquetRows | None = None
        self._open: OrderedDict[Path, tuple[str, Archive, dict[str, ArchiveMember]]] = OrderedDict()
        self._turn = Lock()

    def copy(self, path: Path, name: str, to: Path | None) -> tuple[ArchiveMember, str]:
        """Copy a member to a file, or only read it, and return it with the xxh3_64 of its bytes in hex.

        Raises:
            OutageError: The member cannot be read.
            OSError: The file cannot be written.
        """
        if path.suffix == SUFFIX:
            return self._copy_row(path, name, to)
        with self._turn:
            archive, members = self._at(path)
            if name not in members:
                raise OutageError(
                    f"{path} no longer contains {name!r}, although it was listed; run the same command again"
                )
            member = members[name]
            if to is None:
                return member, archive.copy(member, None)
            with to.open("wb") as file:
                return member, archive.copy(member, file)

    def _copy_row(self, path: Path, name: str, to: Path | None) -> tuple[ArchiveMember, str]:
        with self._turn:
            with _reading(path):
                mtime_ns = path.stat().st_mtime_ns
            if self._rows is None or (self._rows.path, self._rows.mtime_ns) != (path, mtime_ns):
                if self._rows is not None:
                    self._rows.close()
                self._rows = ParquetRows(path, self._folder())
            data = self._rows.data(name)
        if to is not None:
            to.write_bytes(data)
        return ArchiveMember(name, len(data), mtime_ns, 0), xxhash.xxh3_64_hexdigest(data)

    def _folder(self) -> Path:
        """Folder for unpacked row groups. A job's folder exists only on the machine where the job started."""
        if self._unpacked is not None and self._unpacked.is_dir():
            return self._unpacked
        if self._scratch is None:
            self._scratch = Scratch()
        return self._scratch.folder

    def _at(self, path: Path) -> tuple[Archive, dict[str, ArchiveMember]]:
        with _reading(path):
            key = _key(path)
        known = self._open.pop(path, None)
        if known is not None and known[0] != key:  # it was rewritten
            known[1].close()
            known = None
        if known is None:
            found = list_archive(path)
            with _reading(path):
                known = (key, Archive(path, found.index), found.members)
        self._open[path] = known
        if len(self._open) > _OPEN:
            self._open.popitem(last=False)[1][1].close()
        return known[1], known[2]

    def close(self) -> None:
        """Close all archives."""
        if self._rows is not None:
            self._rows.close()
        if self._scratch is not None:
            self._scratch.close()
        while self._open:
            self._open.popitem()[1][1].close()


def list_archive(path: Path) -> Listed:
    """List an archive, damaged or not. Otherwise raises as `list_members` does."""
    if path.name.lower().endswith(".zip"):
        with _reading(path), _opened(path) as archive:
            found = archive.contents()
            return Listed(found.members, None, found.damage)
    with _reading(path):
        key = _key(path)
    with _keep_list(path):
        base = make_own_folder(cache_folder() / "archives") / key
    index, members = base.with_suffix(".gzindex"), base.with_suffix(".json")
    if (known := _known(members, index)) is not None:
        return known
    with _keep_list(path), _wait_alone(base):
        if (known := _known(members, index)) is not None:  # another process has listed it
            return known
        log.info("listing %s, which is done only once", path)
        with _reading(path), _opened(path) as archive:
            found = archive.contents()
            if archive.is_gzip:
                archive.write_index(index)
        digest = read_state(index).xxh3_64 if archive.is_gzip else ""
        facts = {
            "gzip": digest,
            "damage": found.damage,
            "members": [astuple(member) for member in found.members.values()],
        }
        with publishing(members) as stream:
            stream.write(json.dumps(facts).encode())
    return Listed(found.members, index if archive.is_gzip else None, found.damage)


def _known(members: Path, index: Path) -> Listed | None:
    """Return the cached listing, or None if there is no intact one."""
    try:
        return _remembered(members, index)
    except (OSError, ValueError, KeyError, TypeError):
        return None


@lru_cache(maxsize=1024)
def _remembered(members: Path, index: Path) -> Listed:
    facts = json.loads(members.read_bytes())
    found = {name: ArchiveMember(name, *rest) for name, *rest in facts["members"]}
    damage, digest = facts["damage"], facts["gzip"]
    if digest and read_state(index).xxh3_64 != digest:
        raise ValueError(f"{index} is damaged")
    return Listed(found, index if digest else None, damage)


def _key(path: Path) -> str:
    facts = [(str(piece.resolve()), piece.stat().st_size, piece.stat().st_mtime_ns) for piece in pieces(path)]
    return xxhash.xxh3_128_hexdigest(json.dumps(facts).encode())


@contextmanager
def _opened(path: Path) -> Iterator[Archive]:
    archive = Archive(path)
    try:
        yield archive
    finally:
        archive.close()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutageError(f"{path} cannot be read ({error.strerror or error}); run the same command again") from error


@contextmanager
def _keep_list(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, StoreError) as error:
        raise OutageError(
            f"{cache_folder()} cannot hold the list of {path} ({error}); pass a different folder with {CACHE}"
        ) from error


@contextmanager
def _wait_alone(base: Path) -> Iterator[None]:
    """Wait until no other process lists the same archive. Without file locks, several processes may do so."""
    with open(base.with_suffix(".lock"), "ab") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
