"""Tars of other programs, on a disk or at URLs: their sizes, ages and bytes, and what is indexed of a member."""

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
    """The size of a tar in bytes and when it was modified, in ns; at a URL to the second."""

    size_bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class TarFile:
    """The tar at a location."""

    where: Location

    @classmethod
    def of(cls, out: Location, name: str) -> TarFile:
        """The tar that a split in `out` names: by its URL, or by its path from there."""
        return cls(name if is_url(name) else within(out, name))

    def state(self) -> TarState | None:
        """The state of the tar now; None if there is no such file. Raises OutageError if it cannot be asked for."""
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
        """The tar as a stream, and its state before it is read.

        Raises OutageError if it cannot be read, or one at a URL is another one at the end of the block.
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
            raise OutageError(f"{self.where} was changed while it was read")


def find_tars(tars: Sequence[Location]) -> list[Location]:
    """The tars, and those in the folders. Raises ValueError for what is missing or cannot be indexed together."""
    if odd := [tar for tar in tars if str(tar).startswith("pipe:")]:
        raise ValueError(f"{odd[0]}: tars are read, and no output of commands")
    remote = sorted({url for tar in tars if is_url(tar) for url in _find_at_url(str(tar).rstrip("/"))})
    own = [Path(tar) for tar in tars if not is_url(tar)]
    paths = [path for tar in own for path in (sorted(tar.glob("*.tar")) if tar.is_dir() else [tar])]
    if missing := [path for path in paths if not path.is_file()]:
        raise ValueError(
            f"there is no file {missing[0]} ({len(missing)} of {len(paths)} are missing); give tars, or their folder"
        )
    if packed := [one for one in (*paths, *remote, *_find_packed_in(own if not paths else [])) if _is_packed(str(one))]:
        raise ValueError(
            f"{packed[0]} is compressed as one, but loaders read a part of a tar at its place. `gunzip` makes a plain "
            ".tar of it, which is hardly larger, for videos and sounds are compressed already; or use `maskstream "
            "shards`, which reads it as it is"
        )
    if not paths and not remote:
        raise ValueError(f"there is no *.tar in {', '.join(map(str, tars)) or 'no folder'}; give tars, or their folder")
    near = sorted({path.parent.resolve() / path.name for path in paths})
    found: list[Location] = [*near, *remote]
    for stem, count in Counter(PurePosixPath(tar).stem for tar in found).items():
        if count > 1:
            raise ValueError(f"{count} tars are named {stem!r}; index them into different folders, or rename them")
    if odd := [tar for tar in found if not str(tar).endswith(".tar")]:
        raise ValueError(f"{odd[0]} does not end in .tar; rename it if it is one")
    return found


def _is_packed(name: str) -> bool:
    return name.lower().endswith(_PACKED)


def _find_packed_in(places: Sequence[Path]) -> list[Path]:
    """The compressed tars in folders."""
    return [path for place in places if place.is_dir() for path in sorted(place.iterdir()) if _is_packed(path.name)]


def _find_at_url(url: str) -> list[str]:
    """A tar, or the tars in a folder. Raises ValueError if there are none, or the server lists no files."""
    if url.endswith(".tar") or _is_packed(url):
        return [url]
    try:
        names = open_store(url).names()
    except UnlistedError as error:
        raise ValueError(f"{url} is on a web server, which lists no files; give the URLs of its tars") from error
    found = [f"{url}/{name}" for name in names if name.endswith(".tar") and "/" not in name]
    if not found:
        raise ValueError(f"there is no *.tar in {url}; give tars, or their folder")
    return found


def index_folder(tars: Sequence[Location], out: Location | None) -> Location:
    """The folder of the index. Raises ValueError if it cannot be told, or cannot name a tar."""
    folders = sorted({split_folder_and_name(tar)[0] for tar in tars}, key=str)
    if out is None and len(folders) > 1:
        raise ValueError(f"the tars are in {len(folders)} folders, such as {folders[0]} and {folders[1]}; give --out")
    folder = folders[0] if out is None else out
    if is_url(folder) and (near := [tar for tar in tars if not is_url(tar)]):
        raise ValueError(f"{near[0]} cannot be read by those who read {folder}; give --out a local folder")
    try:
        open_output(folder)
        for place in {split_folder_and_name(tar)[0] for tar in tars if is_url(tar)}:
            joined(str(folder), str(place))
    except (ValueError, StoreError) as error:
        raise ValueError(f"{error}; give another --out") from error
    return folder


def name_in_split(tar: Location, output: Output) -> str:
    """How the split names a tar: by its path from the folder, or by its URL if it is not below it."""
    if not is_url(tar):
        return Path(os.path.relpath(tar, Path(output.location).resolve())).as_posix()
    folder, name = split_folder_and_name(tar)
    return name if folder == output.location else str(tar)


_KINDS = {"json": JSON.name, "txt": TEXT.name, "cls": TEXT.name}
"""The kinds of members that are not indexed, by their component; all others are bytes."""

Span = tuple[int, int, bytes]
"""Offset and size of a member in the tar, and its xxh3_128."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Indexed:
    """The member with its packet table; `sums` as in `Sample`."""

    member: Member
    sums: dict[str, list[float]] = field(default_factory=dict)

    def row(self, key: str, source: str, spans: dict[str, Span], ending: str, offset: int) -> Row:
        """The row of the sample, without a label; its table is at `offset` of the packets file.

        The member `ending` becomes the component named after its kind (`video`), whatever its container.
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
