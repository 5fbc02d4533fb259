"""Tars of other programs, on a disk or at URLs: their sizes, ages and bytes, and the indexed member of a sample."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from maskstream.shards.errors import MissingFileError, OutageError, StoreError, UnlistedError
from maskstream.shards.format.records import Placed, Row
from maskstream.shards.members.member import ENDING, Member
from maskstream.shards.members.text import BYTES, JSON, TEXT
from maskstream.shards.stores.base import stream
from maskstream.shards.stores.folders import joined
from maskstream.shards.stores.open import open_store
from maskstream.shards.stores.output import Location, Output, open_output, split_folder_and_name, within
from maskstream.shards.stores.url import is_url

_PACKED = (".gz", ".tgz", ".zst", ".bz2", ".xz")


class TarState(NamedTuple):
    """The size of a tar in bytes and its modification time in ns; at a URL to the second."""

    size_bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class TarFile:
    """The tar at a location."""

    where: Location

    @classmethod
    def of(cls, out: Location, name: str) -> TarFile:
        """Return the tar to which a split in `out` refers by its URL, or by its path relative to `out`."""
        return cls(name if is_url(name) else within(out, name))

    def state(self) -> TarState | None:
        """Return the current state of the tar; None if it does not exist. Raise OutageError if the server cannot be
        reached.
        """
        if not is_url(self.where):
            try:
                found = Path(self.where).stat()
            except OSError:
                return None
            return TarState(found.st_size, found.st_mtime_ns)
        from maskstream.shards.stores.remote_files import RemoteFiles

        folder, name = split_folder_and_name(self.where)
        try:
            return TarState(*RemoteFiles(str(folder)).state(name))
        except MissingFileError:
            return None

    @contextmanager
    def reading(self) -> Iterator[tuple[BinaryIO, TarState]]:
        """Open the tar as a stream, with its state before it is read.

        Raises:
            OutageError: The tar cannot be read, or a tar at a URL has changed at the end of the block.
        """
        try:
            if is_url(self.where):
                yield from self._reading_remote()
                return
            with Path(self.where).open("rb") as file:
                found = os.fstat(file.fileno())
                yield file, TarState(found.st_size, found.st_mtime_ns)
        except OSError as error:
            raise OutageError(f"{self.where} cannot be read ({error.strerror or error})") from error

    def _reading_remote(self) -> Iterator[tuple[BinaryIO, TarState]]:
        state = self.state()
        if state is None:
            raise OutageError(f"there is no file {self.where}")
        folder, name = split_folder_and_name(self.where)
        with stream(open_store(folder), name) as file:
            yield file, state
        if self.state() != state:
            raise OutageError(f"{self.where} changed while it was read")


def find_tars(tars: Sequence[Location]) -> list[Location]:
    """Return the tars, including all in the folders.

    Args:
        tars: Tars and folders, on a disk or at URLs.

    Raises:
        ValueError: A tar is missing, compressed, or cannot be indexed together with the others.
    """
    if odd := [tar for tar in tars if str(tar).startswith("pipe:")]:
        raise ValueError(f"{odd[0]} looks like a shell pipe; pass tars or their folder")
    remote = sorted({url for tar in tars if is_url(tar) for url in _find_at_url(str(tar).rstrip("/"))})
    own = [Path(tar) for tar in tars if not is_url(tar)]
    paths = [path for tar in own for path in (sorted(tar.glob("*.tar")) if tar.is_dir() else [tar])]
    if missing := [path for path in paths if not path.is_file()]:
        raise ValueError(
            f"there is no file {missing[0]} ({len(missing)} of {len(paths)} are missing); pass tars or their folder"
        )
    _check_unpacked([*paths, *remote, *_find_packed_in(own if not paths else [])])
    if not paths and not remote:
        raise ValueError(f"no *.tar found in {', '.join(map(str, tars)) or 'no folder'}; pass tars or their folder")
    near = sorted({path.parent.resolve() / path.name for path in paths})
    found: list[Location] = [*near, *remote]
    _check_names(found)
    return found


def _check_unpacked(tars: Sequence[Location]) -> None:
    if packed := [tar for tar in tars if _is_packed(str(tar))]:
        raise ValueError(
            f"{packed[0]} is compressed as a whole, but loaders read single members from a tar. Decompress it with "
            "`gunzip`; media are already compressed, so the file grows very little. Or use `maskstream shards`, "
            "which reads compressed tars"
        )


def _check_names(tars: Sequence[Location]) -> None:
    for stem, count in Counter(PurePosixPath(tar).stem for tar in tars).items():
        if count > 1:
            raise ValueError(f"{count} tars are named {stem!r}; index them into different folders, or rename them")
    if odd := [tar for tar in tars if not str(tar).endswith(".tar")]:
        raise ValueError(f"{odd[0]} does not end in .tar; rename it if it is a tar")


def _is_packed(name: str) -> bool:
    return name.lower().endswith(_PACKED)


def _find_packed_in(places: Sequence[Path]) -> list[Path]:
    """Return the compressed tars in folders."""
    return [path for place in places if place.is_dir() for path in sorted(place.iterdir()) if _is_packed(path.name)]


def _find_at_url(url: str) -> list[str]:
    """Return a tar, or the tars in a folder. Raise ValueError if there are none, or the server cannot list files."""
    if url.endswith(".tar") or _is_packed(url):
        return [url]
    try:
        names = open_store(url).names()
    except UnlistedError as error:
        raise ValueError(f"{url} is on a web server, which cannot list files; pass the URLs of its tars") from error
    found = [f"{url}/{name}" for name in names if name.endswith(".tar") and "/" not in name]
    if not found:
        raise ValueError(f"no *.tar found in {url}; pass tars or their folder")
    return found


def index_folder(tars: Sequence[Location], out: Location | None) -> Location:
    """Return the folder of the index.

    Args:
        tars: Tars to index.
        out: Requested folder; None for the folder of the tars.

    Raises:
        ValueError: The tars are in several folders, or an index in this folder cannot refer to them.
    """
    folders = sorted({split_folder_and_name(tar)[0] for tar in tars}, key=str)
    if out is None and len(folders) > 1:
        raise ValueError(f"the tars are in {len(folders)} folders, such as {folders[0]} and {folders[1]}; pass --out")
    folder = folders[0] if out is None else out
    if is_url(folder) and (near := [tar for tar in tars if not is_url(tar)]):
        raise ValueError(f"readers of {folder} cannot access {near[0]}; pass a local folder as --out")
    try:
        open_output(folder)
        for place in {split_folder_and_name(tar)[0] for tar in tars if is_url(tar)}:
            joined(str(folder), str(place))
    except (ValueError, StoreError) as error:
        raise ValueError(f"{error}; pass a different --out") from error
    return folder


def name_in_split(tar: Location, output: Output) -> str:
    """Return the name of a tar in the split: its path relative to the folder, or its URL if it is not below it."""
    if not is_url(tar):
        return Path(os.path.relpath(tar, Path(output.location).resolve())).as_posix()
    folder, name = split_folder_and_name(tar)
    return name if folder == output.location else str(tar)


_KINDS = {"json": JSON.name, "txt": TEXT.name, "cls": TEXT.name}
"""Kinds of members that are not indexed, by their component; all others are bytes."""

Span = tuple[int, int, bytes]
"""Offset and size of a member in the tar, and its xxh3_128."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Indexed:
    """A member with its packet table.

    Attributes:
        member: Member with its facts and table.
        sums: Sums for the statistics of the split, as in `Sample`.
    """

    member: Member
    sums: dict[str, list[float]] = field(default_factory=dict)

    def row(self, key: str, source: str, spans: dict[str, Span], ending: str, offset: int) -> Row:
        """Return the row of the sample, without a label.

        Args:
            key: Key of the sample.
            source: Id of the sample, for rejects.
            spans: Position of each member in the tar, by component.
            ending: Component of the indexed member, which is renamed to its kind (`video`), whatever its container.
            offset: Position of its table in the packets file.
        """
        own = self.member
        members: dict[str, Placed] = {}
        for name, (begin, size, digest) in spans.items():
            place = Placed(kind=_KINDS.get(name, BYTES.name), offset=begin, size=size, digest=digest)
            if name != ending:
                members[name] = place
                continue
            facts = {**own.facts, "table_offset": offset, "table_size": len(own.table)}
            words = {**own.words, ENDING: ending}
            members[own.kind] = replace(place, kind=own.kind, facts=facts, words=words, lists=own.lists)
        return Row(key=key, label=-1, source=source, members=members, sums=self.sums)
