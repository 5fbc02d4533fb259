"""Read the members of a raw-data archive one by one, without unpacking it.

An archive's name ends in .tar, .tar.gz, .tgz or .zip. It may be split into parts whose names end in -00, -01 and so on,
as in Something-Something V2.
"""

import calendar
import io
import os
import re
import stat
import zipfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import IO, BinaryIO, cast

import xxhash
from typing_extensions import Buffer

from maskstream.shards.errors import DatasetError, OutageError

from .file_state import DamagedFileError, FileState
from .members import ArchiveMember, Contents, TarMembers, check_name, clamp_age_ns, clean_name, damage

ENDINGS = (".tar", ".tar.gz", ".tgz", ".zip")
MAX_PACKING = 200
"""Highest compression ratio of a member over 1 GiB. Deflate reaches 1,032 only on zeros."""
_FEW_BYTES = 1 << 30
_PART = re.compile(r"(.+-)(\d{2,3})")
_CHUNK_BYTES = 1 << 20


def is_archive(path: Path) -> bool:
    """Return whether a path is named like an archive or the first part of one."""
    name = path.name.lower()
    return name.endswith(ENDINGS) or ((part := _PART.fullmatch(name)) is not None and not int(part[2]))


def pieces(path: Path) -> list[Path]:
    """Return the files of an archive: itself, or all its parts. Raises OSError if there are none."""
    part = _PART.fullmatch(path.name)
    if part is None or path.name.lower().endswith(ENDINGS):
        path.stat()
        return [path]
    numbered = {
        int(other[2]): one for one in path.parent.iterdir() if (other := _match_same_cut(one, part[1], part[2]))
    }
    if (lacking := len(numbered)) not in numbered and max(numbered) + 1 == lacking:
        return [numbered[number] for number in range(lacking)]
    first = next(number for number in range(max(numbered) + 2) if number not in numbered)
    raise DatasetError(f"{path.with_name(f'{part[1]}{first:0{len(part[2])}d}')} is missing, but later parts exist")


def _match_same_cut(path: Path, stem: str, number: str) -> re.Match[str] | None:
    """Match the name of another part of the same archive."""
    found = _PART.fullmatch(path.name)
    return found if found and found[1] == stem and len(found[2]) == len(number) and path.is_file() else None


class Archive:
    """An archive that is open for reading, in one thread at a time.

    Args:
        path: Archive, or its first part.
        index: Index of its gzip stream, if there is one.

    Raises:
        DatasetError: The file is not an archive, or reading it needs indexed_gzip, which is not installed.
        OSError: The file cannot be read.
    """

    def __init__(self, path: Path, index: Path | None = None) -> None:
        self.path = path
        self._closing = ExitStack()
        with damage(path):
            files = pieces(path)
            self._packed_bytes = sum(file.stat().st_size for file in files)
            raw = cast(BinaryIO, JoinedFile(files)) if len(files) > 1 else files[0].open("rb")
            self._closing.callback(raw.close)
            self._held: TarMembers | ZipMembers
            try:
                is_zip = path.name.lower().endswith(".zip")
                self._held = ZipMembers(path, raw) if is_zip else TarMembers(path, raw, index)
            except BaseException:
                self._closing.close()
                raise
        self._closing.callback(self._held.close)

    @property
    def is_gzip(self) -> bool:
        """Whether members are located with an index of the gzip stream."""
        return isinstance(self._held, TarMembers) and self._held.is_gzip

    @property
    def is_zip(self) -> bool:
        """Whether it is a zip file."""
        return isinstance(self._held, ZipMembers)

    def close(self) -> None:
        """Close its files."""
        self._closing.close()

    def contents(self) -> Contents:
        """List its files by name in archive order, without hidden ones. A compressed tar is read to its end.

        If a name occurs more than once, the last file counts, as when the archive is unpacked. A damaged tar is listed
        as far as it can be read, with a description of the damage.

        Raises:
            DatasetError: A member is a link, encrypted, too large or outside the archive, or nothing can be read.
        """
        with damage(self.path):
            return self._held.contents()

    def write_index(self, path: Path) -> None:
        """Write the index of the gzip stream, after `contents`. No other process may write it at the same time."""
        assert isinstance(self._held, TarMembers)
        self._held.write_index(path)

    def copy(self, member: ArchiveMember, to: BinaryIO | None) -> str:
        """Copy a member's bytes, or only read them, and return their xxh3_64 in hex.

        Raises:
            DamagedFileError: The member is truncated or corrupt in a zip, or packed so tightly that it looks like a zip
                bomb.
            OutageError: The bytes cannot be read.
            OSError: The bytes cannot be written.
        """
        digest, left = xxhash.xxh3_64(), member.size_bytes
        self._check_packing(member)
        try:
            with damage(self.path), self._held.open(member) as stream:
                while data := stream.read(min(_CHUNK_BYTES, left + 1) if self.is_zip else min(_CHUNK_BYTES, left)):
                    digest.update(data)
                    left -= len(data)
                    if to is not None:
                        to.write(data)
        except DatasetError as error:
            if self.is_zip:
                raise _make_damage_error(
                    member, "open", f"is damaged in {self.path.name} ({error.__cause__})"
                ) from error
            raise OutageError(f"{member.name!r}: {error}") from error
        if left and self.is_zip:
            raise _make_damage_error(
                member, "open", f"has a different size in {self.path.name} from the one in its list"
            )
        if left:
            raise OutageError(f"{self.path} does not contain {member.name!r} as listed; is it still being written?")
        return digest.hexdigest()

    def _check_packing(self, member: ArchiveMember) -> None:
        """Raise DamagedFileError if a large member's compression ratio is above `MAX_PACKING`."""
        packed = self._packed_bytes
        if isinstance(self._held, ZipMembers) and (own := self._held.read_packed_bytes(member)) is not None:
            packed = min(packed, own)
        if member.size_bytes > max(_FEW_BYTES, MAX_PACKING * packed):
            raise _make_damage_error(
                member, "check", f"would be {member.size_bytes} bytes, of {packed} in {self.path.name}"
            )


class JoinedFile(io.RawIOBase):
    """Read-only concatenation of several files. Raises OSError if one cannot be opened."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._files = [path.open("rb", buffering=0) for path in paths]
        sizes = [os.fstat(file.fileno()).st_size for file in self._files]
        self._starts = [0, *accumulate(sizes)]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        return self._at

    def readinto(self, buffer: Buffer, /) -> int:
        """Read from one of the files, at most up to its end."""
        if self._at >= self._starts[-1]:
            return 0
        number = bisect_right(self._starts, self._at) - 1
        file = self._files[number]
        file.seek(self._at - self._starts[number])
        room = memoryview(buffer)[: self._starts[number + 1] - self._at]
        count = file.readinto(room) or 0
        self._at += count
        return count

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


def _make_damage_error(member: ArchiveMember, stage: str, reason: str) -> DamagedFileError:
    state = FileState(size_bytes=member.size_bytes, mtime_ns=member.mtime_ns, xxh3_64="")
    return DamagedFileError(stage, reason, state)


_LOCAL_HEADER, _END_OF_ZIP = b"PK\x03\x04", b"PK\x05\x06"
_END_BYTES, _MANY = 22, 0xFFFF
_MOST_END_BYTES = _END_BYTES + _MANY
"""Largest end record of a zip, whose comment has up to 65,535 bytes."""


class ZipMembers:
    """Members of the zip at `path`, which is open as `raw`."""

    def __init__(self, path: Path, raw: BinaryIO) -> None:
        self._path, self._raw = path, raw
        self._zip = zipfile.ZipFile(raw)
        self._headers = {(info.header_offset, clean_name(info.filename)): info for info in self._zip.infolist()}

    def close(self) -> None:
        """Do nothing: only the file itself is open."""

    def contents(self) -> Contents:
        """List the members from the zip's central directory."""
        return Contents({member.name: member for member in self._listed()}, self._damage())

    def _listed(self) -> Iterator[ArchiveMember]:
        for info in self._zip.infolist():
            name = check_name(self._path, info.filename, info.file_size)
            if info.is_dir() or name is None:
                continue
            if stat.S_ISLNK(info.external_attr >> 16) or info.flag_bits & 1:
                raise DatasetError(f"{self._path} contains {name!r}, which is a link or encrypted; unpack it")
            yield ArchiveMember(name, info.file_size, clamp_age_ns(_zip_age_s(info)), info.header_offset)

    def _damage(self) -> str:
        """Describe why members seem to be missing from the central directory; "" if they do not."""
        listed, raw = self._zip.infolist(), self._raw
        count = _read_declared_count(raw)
        if count not in (None, len(listed) & _MANY):
            return f"its list has {len(listed)} files, but its end record declares {count}"
        raw.seek(0)
        if (first := min((info.header_offset for info in listed), default=0)) < 0:
            return f"it lacks {-first} bytes before its list"
        if first and raw.read(4) == _LOCAL_HEADER:
            return (
                f"its list of {len(listed)} files does not cover the data before it; zips may have been joined with cat"
            )
        return ""

    def read_packed_bytes(self, member: ArchiveMember) -> int | None:
        """Return the compressed size of a member in bytes; None if it is missing."""
        info = self._headers.get((member.offset, member.name))
        return None if info is None else info.compress_size

    @contextmanager
    def open(self, member: ArchiveMember) -> Iterator[IO[bytes]]:
        """Open a member for reading. Raises ValueError if it is missing."""
        info = self._headers.get((member.offset, member.name))
        if info is None or info.header_offset < 0:
            raise ValueError(f"there is no member at {member.offset}")
        with self._zip.open(info) as stream:
            yield stream


def _read_declared_count(raw: BinaryIO) -> int | None:
    """Read the number of files from a zip's end record, modulo 65,536; None if there is none."""
    size = raw.seek(0, os.SEEK_END)
    raw.seek(max(0, size - _MOST_END_BYTES))
    end = raw.read()
    at = end.rfind(_END_OF_ZIP)
    if at < 0 or len(end) < at + _END_BYTES:
        return None
    count = int.from_bytes(end[at + 10 : at + 12], "little")
    return None if count == _MANY else count


def _zip_age_s(info: zipfile.ZipInfo) -> int:
    """Return a member's modification time in seconds, or 1980-01-01 if it is invalid, as Go and others write it."""
    try:
        return calendar.timegm((*info.date_time, 0, 0, 0))
    except ValueError:
        return calendar.timegm((1980, 1, 1, 0, 0, 0))
