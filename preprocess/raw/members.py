"""Members of raw-data archives: names, sizes, modification times and rules for refusing them; and members of a tar,
plain or gzipped, also after damaged places.

In a gzipped tar, indexed_gzip finds every member after one pass.
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
"""Largest accepted member in bytes: a task copies members into a temporary folder, one by one."""
_NAME_BYTES = 255
"""Longest name that file systems accept."""
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
    """A file in an archive.

    Attributes:
        name: Path in the archive.
        size_bytes: Size in bytes.
        mtime_ns: Modification time in ns.
        offset: Position of its bytes in the uncompressed tar, or of its header in the zip.
    """

    name: str
    size_bytes: int
    mtime_ns: int
    offset: int


class Contents(NamedTuple):
    """Members of an archive by name, and a description of its damage ("" for none)."""

    members: dict[str, ArchiveMember]
    damage: str


def check_name(path: Path, name: str, size_bytes: int) -> str | None:
    """Return the path of a member of the archive at `path`; None if it, or a folder above it, is hidden.

    Raises:
        DatasetError: The member may lie outside the archive's folder, or is too large.
    """
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise DatasetError(f"{path} contains {name!r}, which may lie outside its folder; unpack it with care")
    if long := [part for part in parts if len(part.encode("utf-8", "surrogateescape")) > _NAME_BYTES]:
        raise DatasetError(
            f"{path} contains a file whose name {long[0][:40]!r}... has more than {_NAME_BYTES} bytes, so it cannot "
            "be unpacked anywhere; use a shorter one"
        )
    if size_bytes > MAX_MEMBER_BYTES:
        raise DatasetError(
            f"{path} contains {name!r} with {size_bytes} bytes, but the limit is {MAX_MEMBER_BYTES}; unpack it"
        )
    if any(part.startswith((".", "__MACOSX")) for part in parts):
        return None
    return clean_name(name)


def clean_name(name: str) -> str:
    """Return a member's path without redundant dots and slashes."""
    return "/".join(PurePosixPath(name).parts)


def clamp_age_ns(modified_s: float) -> int:
    """Convert a modification time to ns, within the range that file systems accept."""
    return int(min(max(modified_s, 0), _LATEST_S) * _NS)


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Raise DatasetError if the block finds that the archive at `path` is damaged or not an archive."""
    try:
        yield
    except _DAMAGE + list_gzip_errors() as error:
        raise DatasetError(
            f"{path} is damaged, or not an archive ({error or type(error).__name__}); download it again"
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise DatasetError(f"{path} is damaged ({error}); download it again") from error  # raised by bz2


def list_gzip_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that indexed_gzip raises for damage; none if it is not installed."""
    try:
        import indexed_gzip
    except ImportError:
        return ()
    errors: tuple[type[Exception], ...] = (indexed_gzip.ZranError, indexed_gzip.NotCoveredError)
    return errors


_GZIP = b"\x1f\x8b"
_MAGIC, _MAGIC_AT = b"ustar", 257
"""Magic bytes of a tar header and their offset, in all formats but the oldest."""
_SHORT_NAME_BYTES = 100
"""Size of the name field in a header; a longer name is stored in a preceding header."""
_CHUNK_BYTES = 1 << 20
_SPACING_BYTES = 8 << 20
"""Distance between the seek points of a gzip stream, in bytes. Each takes 32 kB in the index."""


class TarMembers:
    """Members of the tar at `path`, which is open as `raw`.

    Args:
        path: Archive, for messages.
        raw: The open archive.
        index: Index of its gzip stream, if there is one.

    Raises:
        DatasetError: The tar needs indexed_gzip, which is not installed.
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
        """Whether members are located with an index of the gzip stream."""
        return self._gzip is not None

    def close(self) -> None:
        """Close the gzip stream."""
        if self._gzip is not None:
            self._gzip.close()

    def contents(self) -> Contents:
        """List the members. A gzip stream is read in full, once."""
        what, size_bytes = self._index_gzip() if self.is_gzip else ("", self._stream.seek(0, os.SEEK_END))
        return self._list_tar(_Skipping(self._stream, size_bytes), what)

    def _index_gzip(self) -> tuple[str, int]:
        """Read a gzip stream in full, which verifies its checksum, and return its damage and the number of readable
        bytes.
        """
        try:
            self._gzip.build_full_index()
        except list_gzip_errors() as error:
            return str(error), _count_readable_bytes(self._gzip)
        return "", self._gzip.seek(0, os.SEEK_END)

    def _list_tar(self, reader: _Skipping, what: str) -> Contents:
        """List a tar's members, also after damaged places. `what` describes the damage of its gzip stream."""
        found: dict[str, ArchiveMember] = {}
        damaged_at, before, is_empty = -1, -1, True
        while True:
            try:
                for info in walk(reader, foreign=True):
                    is_empty = False
                    stored = info.size if info.isreg() else 0
                    reader.end = info.offset_data + -(-stored // BLOCK_BYTES) * BLOCK_BYTES
                    # A header may hold only part of a name, whose rest was in a damaged header before it.
                    if info.offset == damaged_at and (
                        "?" in info.name or len(info.name.encode("utf-8", "surrogateescape")) >= _SHORT_NAME_BYTES
                    ):
                        continue
                    if (member := self._member(info)) is not None:
                        found[member.name] = member
                break
            except ShardError as error:
                what, before = what or str(error), len(found) if before < 0 else before
                damaged_at = reader.find_header(max(reader.end, damaged_at + BLOCK_BYTES))
                if damaged_at < 0:
                    break
        what = what or ("it contains only zeros" if is_empty else "")
        if what and not found:
            raise DatasetError(f"{self._path} is damaged, or not an archive ({what}); download it again")
        if what and before >= 0:
            what = f"{what}; {len(found)} of its files can be read, {before} of them before the damage"
        elif what:
            what = f"{what}; {len(found)} of its files can be read, and some of them are damaged"
        return Contents(found, what)

    def _member(self, info: tarfile.TarInfo) -> ArchiveMember | None:
        """Convert a tar entry; None for a folder or hidden file. Raises DatasetError if it is not a regular file."""
        name = check_name(self._path, info.name, info.size)
        if info.isdir() or name is None:
            return None
        if not info.isreg():
            raise DatasetError(f"{self._path} contains {name!r}, which is a link or not a regular file; unpack it")
        return ArchiveMember(name, info.size, clamp_age_ns(info.mtime), info.offset_data)

    def write_index(self, path: Path) -> None:
        """Write the index of the gzip stream, after `contents`. No other process may write it at the same time."""
        temporary = path.with_suffix(".tmp")
        self._gzip.export_index(str(temporary))
        temporary.replace(path)

    @contextmanager
    def open(self, member: ArchiveMember) -> Iterator[IO[bytes]]:
        """Open the tar at the first byte of a member."""
        self._stream.seek(member.offset)
        yield self._stream


class _Skipping:
    """Reads the headers of a tar and skips the members' bytes (`TarReader`). `end` is the end of the last member."""

    def __init__(self, stream: IO[bytes], size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.position = 0
        self.end = 0
        self._stream = stream

    def read(self, size: int) -> bytes:
        """Read the next `size` bytes, or fewer at the end or where a gzip stream becomes unreadable."""
        data, left = b"", min(size, self.size_bytes - self.position)
        try:
            self._stream.seek(self.position)
            while left > 0 and (
                more := self._stream.read(left)
            ):  # a read from a joined file stops at the end of one of its files
                data, left = data + more, left - len(more)
        except _find_gzip_damage() as error:
            _raise_outage(error)
            self.size_bytes = self.position + len(data)
        self.position += len(data)
        return data

    def chunks(self, size: int) -> Iterator[bytes]:
        """Skip the next `size` bytes."""
        self.position = min(self.position + max(size, 0), self.size_bytes)
        return iter(())

    def find_header(self, begin: int) -> int:
        """Seek to the first header block at or after `begin` and return its position; -1 if there is none."""
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


def _count_readable_bytes(stream: IO[bytes]) -> int:
    """Count the bytes of a damaged gzip stream that can be read."""
    size = stream.seek(0)
    try:
        while data := stream.read(_CHUNK_BYTES):
            size += len(data)
    except _find_gzip_damage() as error:
        _raise_outage(error)
    return size


def _find_gzip_damage() -> tuple[type[Exception], ...]:
    """Return the exceptions that reading a damaged gzip stream raises."""
    return (*list_gzip_errors(), zlib.error, EOFError, ValueError, OSError)


def _raise_outage(error: Exception) -> None:
    """Re-raise an error if it has an errno, which means that it came from the disk."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _open_indexed(path: Path, raw: BinaryIO, index: Path | None) -> Any:
    try:
        import indexed_gzip
    except ImportError as error:
        raise DatasetError(
            f"reading {path} in place needs indexed_gzip: pip install 'maskstream[archives]'; or unpack it"
        ) from error
    file = None if index is None else str(index)
    return indexed_gzip.IndexedGzipFile(
        fileobj=raw, index_file=file, spacing=_SPACING_BYTES, buffer_size=_CHUNK_BYTES, readbuf_size=_CHUNK_BYTES
    )
