"""The members of archives of raw data: their names, sizes and ages, and which are refused; and those of a tar, plain or
compressed with gzip, also behind damaged places.

In a tar that is compressed, indexed_gzip finds every member after one pass.
"""

from __future__ import annotations

import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, NamedTuple

from maskstream.shards.errors import DatasetError, ShardError
from maskstream.shards.format.ustar import BLOCK_BYTES, walk

MAX_MEMBER_BYTES = 1 << 37
"""A larger member is refused: a task copies members into a temporary folder, one by one."""
_NAME_BYTES = 255
"""The longest name that file systems take."""
_NS = 10**9
_LATEST_S = 1 << 33
_DAMAGE: tuple[type[Exception], ...] = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    ArithmeticError,
    LookupError,
    NotImplementedError,
    lzma.LZMAError,
    struct.error,
)


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """A file in an archive: its path there, its size, its modification time, and where it is.

    offset: of its bytes in the tar, as it is without gzip; of its header in the zip.
    """

    name: str
    size_bytes: int
    mtime_ns: int
    offset: int


class Contents(NamedTuple):
    """The members of an archive by name, and what is damaged in it; "" if nothing is."""

    members: dict[str, ArchiveMember]
    damage: str


def check_name(path: Path, name: str, size_bytes: int) -> str | None:
    """The path of a member of the archive at `path`; None if it, or a folder above it, is hidden.

    Raises DatasetError for one that may lie outside of the archive's folder, or is too large.
    """
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise DatasetError(f"{path} holds {name!r}, which may lie outside of its folder; unpack it with care")
    if long := [part for part in parts if len(part.encode("utf-8", "surrogateescape")) > _NAME_BYTES]:
        raise DatasetError(
            f"{path} holds a file whose name {long[0][:40]!r}... has more than {_NAME_BYTES} bytes, so it "
            "can be unpacked nowhere; give it a shorter one"
        )
    if size_bytes > MAX_MEMBER_BYTES:
        raise DatasetError(
            f"{path} holds {name!r} of {size_bytes} bytes; more than {MAX_MEMBER_BYTES} are refused; unpack it"
        )
    if any(part.startswith((".", "__MACOSX")) for part in parts):
        return None
    return clean_name(name)


def clean_name(name: str) -> str:
    """The path of a member, without dots and slashes that say nothing."""
    return "/".join(PurePosixPath(name).parts)


def clamp_age_ns(modified_s: float) -> int:
    """A modification time in ns, within what a file may have."""
    return int(min(max(modified_s, 0), _LATEST_S) * _NS)


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Raises DatasetError where the block finds that the archive at `path` is damaged, or none."""
    try:
        yield
    except _DAMAGE + list_gzip_errors() as error:
        raise DatasetError(
            f"{path} is damaged, or no archive ({error or type(error).__name__}); get it again"
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise DatasetError(f"{path} is damaged ({error}); get it again") from error  # bz2 says so


def list_gzip_errors() -> tuple[type[Exception], ...]:
    """What indexed_gzip raises of damage; nothing if it is not installed."""
    try:
        import indexed_gzip
    except ImportError:
        return ()
    errors: tuple[type[Exception], ...] = (indexed_gzip.ZranError, indexed_gzip.NotCoveredError)
    return errors


_GZIP = b"\x1f\x8b"
_MAGIC, _MAGIC_AT = b"ustar", 257
"""What a header has there, in all forms but the oldest."""
_SHORT_NAME_BYTES = 100
"""The room for a name in a header; a longer one is in a header before it."""
_CHUNK_BYTES = 1 << 20
_SPACING_BYTES = 8 << 20
"""How far the places are apart from which gzip can be read on. Each takes 32 kB in the index."""


class TarMembers:
    """The members of the tar at `path`, which is open as `raw`. `index`: an index of its gzip, if there is one.

    Raises DatasetError if indexed_gzip is needed and not installed.
    """

    def __init__(self, path: Path, raw: BinaryIO, index: Path | None) -> None:
        self._path = path
        self._gzip: Any = None
        self._stream: IO[bytes] = raw
        begin = raw.read(len(_GZIP))
        raw.seek(0)
        if begin == _GZIP:
            self._gzip = self._stream = _open_indexed(path, raw, index)

    @property
    def is_gzip(self) -> bool:
        """Whether its members are found by an index of its gzip."""
        return self._gzip is not None

    def close(self) -> None:
        """Close the gzip."""
        if self._gzip is not None:
            self._gzip.close()

    def contents(self) -> Contents:
        """The members. A gzip is read whole, once."""
        what, size_bytes = self._index_gzip() if self.is_gzip else ("", self._stream.seek(0, os.SEEK_END))
        return self._list_tar(_Skipping(self._stream, size_bytes), what)

    def _index_gzip(self) -> tuple[str, int]:
        """Read a gzip whole, which compares its checksum. Returns its damage, and how many bytes can be read."""
        try:
            self._gzip.build_full_index()
        except list_gzip_errors() as error:
            return str(error), _count_readable_bytes(self._gzip)
        return "", self._gzip.seek(0, os.SEEK_END)

    def _list_tar(self, reader: _Skipping, what: str) -> Contents:
        """What is in a tar, also behind damaged places; `what` is the damage of its gzip."""
        found: dict[str, ArchiveMember] = {}
        damaged_at, before, is_empty = -1, -1, True
        while True:
            try:
                for info in walk(reader, foreign=True):
                    is_empty = False
                    stored = info.size if info.isreg() else 0
                    reader.end = info.offset_data + -(-stored // BLOCK_BYTES) * BLOCK_BYTES
                    if info.offset == damaged_at and _is_maybe_cut(info.name):
                        continue
                    if (member := self._member(info)) is not None:
                        found[member.name] = member
                break
            except ShardError as error:
                what, before = what or str(error), len(found) if before < 0 else before
                damaged_at = reader.find_header(max(reader.end, damaged_at + BLOCK_BYTES))
                if damaged_at < 0:
                    break
        what = what or ("it is zero from end to end" if is_empty else "")
        if what and not found:
            raise DatasetError(f"{self._path} is damaged, or no archive ({what}); get it again")
        if what and before >= 0:
            what = f"{what}; {len(found)} of its files can be read, {before} of them before that"
        elif what:
            what = f"{what}; {len(found)} of its files can be read, and some of them are damaged"
        return Contents(found, what)

    def _member(self, info: tarfile.TarInfo) -> ArchiveMember | None:
        """A member of a tar; None for a folder or a hidden file. Raises DatasetError for what is no plain file."""
        name = check_name(self._path, info.name, info.size)
        if info.isdir() or name is None:
            return None
        if not info.isreg():
            raise DatasetError(f"{self._path} holds {name!r}, which is a link or no plain file; unpack it")
        return ArchiveMember(name, info.size, clamp_age_ns(info.mtime), info.offset_data)

    def write_index(self, path: Path) -> None:
        """Write the index of its gzip, after `contents`. No other process may do the same at that time."""
        temporary = path.with_suffix(".tmp")
        self._gzip.export_index(str(temporary))
        temporary.replace(path)

    @contextmanager
    def open(self, member: ArchiveMember) -> Iterator[IO[bytes]]:
        """The bytes from the begin of a member on."""
        self._stream.seek(member.offset)
        yield self._stream


class _Skipping:
    """Reads the headers of a tar, and passes over the bytes of members (`TarReader`). `end`: of the last member."""

    def __init__(self, stream: IO[bytes], size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.position = 0
        self.end = 0
        self._stream = stream

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end, which is also where a gzip cannot be read on."""
        data, left = b"", min(size, self.size_bytes - self.position)
        try:
            self._stream.seek(self.position)
            while left > 0 and (more := self._stream.read(left)):  # a joined file gives the rest of one of its files
                data, left = data + more, left - len(more)
        except _find_gzip_damage() as error:
            _raise_outage(error)
            self.size_bytes = self.position + len(data)
        self.position += len(data)
        return data

    def chunks(self, size: int) -> Iterator[bytes]:
        """Pass over the next `size` bytes."""
        self.position = min(self.position + max(size, 0), self.size_bytes)
        return iter(())

    def find_header(self, begin: int) -> int:
        """Go to the first block from `begin` on that is a header, and return where it is; -1 if there is none."""
        self.position = begin
        while chunk := self.read(_CHUNK_BYTES):
            at = chunk.find(_MAGIC)
            while at >= 0:
                block = chunk[at - _MAGIC_AT : at - _MAGIC_AT + BLOCK_BYTES]
                if at % BLOCK_BYTES == _MAGIC_AT and _is_header(block):
                    self.position -= len(chunk) - (at - _MAGIC_AT)
                    return self.position
                at = chunk.find(_MAGIC, at + 1)
        return -1


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _is_maybe_cut(name: str) -> bool:
    """Whether a header may have a part of a name only, of which the rest was in a header before it that is damaged."""
    return "?" in name or len(name.encode("utf-8", "surrogateescape")) >= _SHORT_NAME_BYTES


def _count_readable_bytes(stream: IO[bytes]) -> int:
    """How many bytes of a damaged gzip can be read."""
    size = stream.seek(0)
    try:
        while data := stream.read(_CHUNK_BYTES):
            size += len(data)
    except _find_gzip_damage() as error:
        _raise_outage(error)
    return size


def _find_gzip_damage() -> tuple[type[Exception], ...]:
    """What a damaged gzip raises when it is read."""
    return (*list_gzip_errors(), zlib.error, EOFError, ValueError, OSError)


def _raise_outage(error: Exception) -> None:
    """Raise an error of a disk again, which has a number."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _open_indexed(path: Path, raw: BinaryIO, index: Path | None) -> Any:
    try:
        import indexed_gzip
    except ImportError as error:
        raise DatasetError(
            f"{path} is read in place with indexed_gzip: pip install 'maskstream[archives]'; or unpack it"
        ) from error
    file = None if index is None else str(index)
    return indexed_gzip.IndexedGzipFile(
        fileobj=raw, index_file=file, spacing=_SPACING_BYTES, buffer_size=_CHUNK_BYTES, readbuf_size=_CHUNK_BYTES
    )
