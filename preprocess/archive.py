"""An archive of raw data: what is in it, and its members one by one, without unpacking it.

An archive ends in .tar, .tar.gz, .tgz or .zip, or is cut into parts whose names end in -00, -01, and so on, as those of
Something-Something V2. In a tar that is compressed with gzip, indexed_gzip finds every member after one pass.
"""

from __future__ import annotations

import calendar
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, NamedTuple, cast

import xxhash

from ..shards.errors import DatasetError, OutageError, ShardError
from ..shards.format.ustar import BLOCK_BYTES, walk
from .encode.reject import DamagedFileError
from .file_state import FileState
from .joined_file import JoinedFile

ENDINGS = (".tar", ".tar.gz", ".tgz", ".zip")
MAX_MEMBER_BYTES = 1 << 37
"""A larger member is refused: a task copies members into a temporary folder, one by one."""
MAX_PACKING = 200
"""A member of more than 1 GiB that is packed more tightly is not unpacked. Deflate reaches 1,032 with zeros alone."""
_FEW_BYTES = 1 << 30
_PART = re.compile(r"(.+-)(\d{2,3})")
_GZIP = b"\x1f\x8b"
_MAGIC, _MAGIC_AT = b"ustar", 257
"""What a header has there, in all forms but the oldest."""
_LOCAL_HEADER, _END_OF_ZIP = b"PK\x03\x04", b"PK\x05\x06"
_END_BYTES, _MANY = 22, 0xFFFF
_MOST_END_BYTES = _END_BYTES + _MANY
"""The end of a zip has a comment of up to 65,535 bytes."""
_SHORT_NAME_BYTES = 100
"""The room for a name in a header; a longer one is in a header before it."""
_CHUNK_BYTES = 1 << 20
_SPACING_BYTES = 8 << 20
"""How far the places are apart from which gzip can be read on. Each takes 32 kB in the index."""
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
class Member:
    """A file in an archive: its path there, its size, its modification time, and where it is.

    offset: of its bytes in the tar, as it is without gzip; of its header in the zip.
    """

    name: str
    size_bytes: int
    mtime_ns: int
    offset: int


class Contents(NamedTuple):
    """The members of an archive by name, and what is damaged in it; "" if nothing is."""

    members: dict[str, Member]
    damage: str


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
        except _gzip_damage() as error:
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


def _may_be_cut(name: str) -> bool:
    """Whether a header may have a part of a name only, of which the rest was in a header before it that is damaged."""
    return "?" in name or len(name.encode("utf-8", "surrogateescape")) >= _SHORT_NAME_BYTES


def _readable_bytes(stream: IO[bytes]) -> int:
    """How many bytes of a damaged gzip can be read."""
    size = stream.seek(0)
    try:
        while data := stream.read(_CHUNK_BYTES):
            size += len(data)
    except _gzip_damage() as error:
        _raise_outage(error)
    return size


def _gzip_damage() -> tuple[type[Exception], ...]:
    """What a damaged gzip raises when it is read."""
    return (*_gzip_errors(), zlib.error, EOFError, ValueError, OSError)


def _raise_outage(error: Exception) -> None:
    """Raise an error of a disk again, which has a number."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def is_archive(path: Path) -> bool:
    """Whether a path has the name of an archive, or of the first part of one."""
    name = path.name.lower()
    return name.endswith(ENDINGS) or ((part := _PART.fullmatch(name)) is not None and not int(part[2]))


def pieces(path: Path) -> list[Path]:
    """The files of an archive: itself, or all its parts. Raises OSError if there is none."""
    part = _PART.fullmatch(path.name)
    if part is None or path.name.lower().endswith(ENDINGS):
        path.stat()
        return [path]
    numbered = {int(other[2]): one for one in path.parent.iterdir() if (other := _same_cut(one, part[1], part[2]))}
    if (lacking := len(numbered)) not in numbered and max(numbered) + 1 == lacking:
        return [numbered[number] for number in range(lacking)]
    first = next(number for number in range(max(numbered) + 2) if number not in numbered)
    raise DatasetError(f"{path.with_name(f'{part[1]}{first:0{len(part[2])}d}')} is not there, but later parts are")


def _same_cut(path: Path, stem: str, number: str) -> re.Match[str] | None:
    """The match of another part of the same archive."""
    found = _PART.fullmatch(path.name)
    return found if found and found[1] == stem and len(found[2]) == len(number) and path.is_file() else None


class Archive:
    """An archive that is open for reading, in one thread at a time. `index`: an index of its gzip, if it has one.

    Raises DatasetError if it is no archive, or indexed_gzip is needed and not installed; OSError if it cannot be read.
    """

    def __init__(self, path: Path, index: Path | None = None) -> None:
        self.path = path
        self._closing = ExitStack()
        self._zip: zipfile.ZipFile | None = None
        self._gzip: Any = None
        with damage(path):
            files = pieces(path)
            self._packed_bytes = sum(file.stat().st_size for file in files)
            raw = cast(BinaryIO, JoinedFile(files)) if len(files) > 1 else files[0].open("rb")
            self._closing.callback(raw.close)
            try:
                self._open(raw, index)
            except BaseException:
                self._closing.close()
                raise

    def _open(self, raw: BinaryIO, index: Path | None) -> None:
        if self.path.name.lower().endswith(".zip"):
            self._zip = zipfile.ZipFile(raw)
            self._headers = {(info.header_offset, _path_of(info.filename)): info for info in self._zip.infolist()}
            return
        begin = raw.read(len(_GZIP))
        raw.seek(0)
        self._stream: IO[bytes] = raw
        if begin == _GZIP:
            self._gzip = self._stream = _indexed(self.path, raw, index)
            self._closing.callback(self._gzip.close)

    @property
    def is_gzip(self) -> bool:
        """Whether its members are found by an index of its gzip."""
        return self._gzip is not None

    @property
    def is_zip(self) -> bool:
        """Whether it is a zip."""
        return self._zip is not None

    def close(self) -> None:
        """Close its files."""
        self._closing.close()

    def contents(self) -> Contents:
        """The files in it by name, in their order, but for hidden ones. It is read whole if it is compressed as one.

        The last one of several with the same name counts, as where the archive is unpacked. Of a tar that is damaged,
        what can be read is there, and the damage is told. Raises DatasetError for links, names outside the archive,
        members that are too large, encrypted ones, and archives of which nothing can be read.
        """
        with damage(self.path):
            if self._zip:
                return Contents({member.name: member for member in self._in_zip()}, self._zip_damage(self._zip))
            what, size_bytes = self._full_index() if self.is_gzip else ("", self._stream.seek(0, os.SEEK_END))
            return self._in_tar(_Skipping(self._stream, size_bytes), what)

    def _full_index(self) -> tuple[str, int]:
        """Read a gzip whole, which compares its checksum. Returns its damage, and how many bytes can be read."""
        try:
            self._gzip.build_full_index()
        except _gzip_errors() as error:
            return str(error), _readable_bytes(self._gzip)
        return "", self._gzip.seek(0, os.SEEK_END)

    def _in_tar(self, reader: _Skipping, what: str) -> Contents:
        """What is in a tar, also behind damaged places; `what` is the damage of its gzip."""
        found: dict[str, Member] = {}
        damaged_at, before, is_empty = -1, -1, True
        while True:
            try:
                for info in walk(reader, foreign=True):
                    is_empty = False
                    stored = info.size if info.isreg() else 0
                    reader.end = info.offset_data + -(-stored // BLOCK_BYTES) * BLOCK_BYTES
                    if info.offset == damaged_at and _may_be_cut(info.name):
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
            raise DatasetError(f"{self.path} is damaged, or no archive ({what}); get it again")
        if what and before >= 0:
            what = f"{what}; {len(found)} of its files can be read, {before} of them before that"
        elif what:
            what = f"{what}; {len(found)} of its files can be read, and some of them are damaged"
        return Contents(found, what)

    def _member(self, info: tarfile.TarInfo) -> Member | None:
        """A member of a tar; None for a folder or a hidden file. Raises DatasetError for what is no plain file."""
        name = self._checked(info.name, info.size)
        if info.isdir() or name is None:
            return None
        if not info.isreg():
            raise DatasetError(f"{self.path} holds {name!r}, which is a link or no plain file; unpack it")
        return Member(name, info.size, _age_ns(info.mtime), info.offset_data)

    def _in_zip(self) -> Iterator[Member]:
        assert self._zip is not None
        for info in self._zip.infolist():
            name = self._checked(info.filename, info.file_size)
            if info.is_dir() or name is None:
                continue
            if stat.S_ISLNK(info.external_attr >> 16) or info.flag_bits & 1:
                raise DatasetError(f"{self.path} holds {name!r}, which is a link or encrypted; unpack it")
            yield Member(name, info.file_size, _age_ns(_zip_age_s(info)), info.header_offset)

    def _zip_damage(self, opened: zipfile.ZipFile) -> str:
        """What tells that members of a zip are not in its list; "" if nothing does."""
        listed, raw = opened.infolist(), cast(BinaryIO, opened.fp)
        count = _declared_count(raw)
        if count not in (None, len(listed) & _MANY):
            return f"its list has {len(listed)} files, and its end says {count}"
        raw.seek(0)
        if (first := min((info.header_offset for info in listed), default=0)) < 0:
            return f"it lacks {-first} bytes before its list"
        if first and raw.read(4) == _LOCAL_HEADER:
            return f"its list of {len(listed)} files leaves out what is before them; zips were joined with cat"
        return ""

    def _checked(self, name: str, size_bytes: int) -> str | None:
        """The path of a member; None if it, or a folder above it, is hidden."""
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
            raise DatasetError(f"{self.path} holds {name!r}, which may lie outside of its folder; unpack it with care")
        if long := [part for part in parts if len(part.encode("utf-8", "surrogateescape")) > _NAME_BYTES]:
            raise DatasetError(
                f"{self.path} holds a file whose name {long[0][:40]!r}... has more than {_NAME_BYTES} bytes, so it "
                "can be unpacked nowhere; give it a shorter one"
            )
        if size_bytes > MAX_MEMBER_BYTES:
            raise DatasetError(
                f"{self.path} holds {name!r} of {size_bytes} bytes; more than {MAX_MEMBER_BYTES} are refused; unpack it"
            )
        if any(part.startswith((".", "__MACOSX")) for part in parts):
            return None
        return _path_of(name)

    def write_index(self, path: Path) -> None:
        """Write the index of its gzip, after `contents`. No other process may do the same at that time."""
        temporary = path.with_suffix(".tmp")
        self._gzip.export_index(str(temporary))
        temporary.replace(path)

    def copy(self, member: Member, to: BinaryIO | None) -> str:
        """Copy a member's bytes, or only read them. Returns their xxh3_64 in hex.

        Raises DamagedFileError if a zip does not hold them whole, or an archive packs them so tightly that they are
        meant to fill the disk; OutageError if they cannot be read, OSError if they cannot be written.
        """
        digest, left = xxhash.xxh3_64(), member.size_bytes
        self._check_packing(member)
        try:
            with damage(self.path), self._at(member) as stream:
                while data := stream.read(min(_CHUNK_BYTES, left + 1) if self._zip else min(_CHUNK_BYTES, left)):
                    digest.update(data)
                    left -= len(data)
                    if to is not None:
                        to.write(data)
        except DatasetError as error:
            if self.is_zip:
                raise _damaged(member, "open", f"is damaged in {self.path.name} ({error.__cause__})") from error
            raise OutageError(f"{member.name!r}: {error}") from error
        if left and self.is_zip:
            raise _damaged(member, "open", f"has another size in {self.path.name} than its list says")
        if left:
            raise OutageError(f"{self.path} does not hold {member.name!r} as it was listed; is it being written?")
        return digest.hexdigest()

    def _check_packing(self, member: Member) -> None:
        """Raise DamagedFileError for a member that takes far less room in the archive than it has bytes."""
        packed = self._packed_bytes
        if self._zip is not None and (info := self._headers.get((member.offset, member.name))) is not None:
            packed = min(packed, info.compress_size)
        if member.size_bytes > max(_FEW_BYTES, MAX_PACKING * packed):
            raise _damaged(member, "check", f"would be {member.size_bytes} bytes, of {packed} in {self.path.name}")

    @contextmanager
    def _at(self, member: Member) -> Iterator[IO[bytes]]:
        if self._zip is None:
            self._stream.seek(member.offset)
            yield self._stream
        elif (info := self._headers.get((member.offset, member.name))) is None or info.header_offset < 0:
            raise ValueError(f"there is no member at {member.offset}")
        else:
            with self._zip.open(info) as stream:
                yield stream


def _declared_count(raw: BinaryIO) -> int | None:
    """How many files the end of a zip says that there are, but for multiples of 65,536; None if it does not say."""
    size = raw.seek(0, os.SEEK_END)
    raw.seek(max(0, size - _MOST_END_BYTES))
    end = raw.read()
    at = end.rfind(_END_OF_ZIP)
    if at < 0 or len(end) < at + _END_BYTES:
        return None
    count = int.from_bytes(end[at + 10 : at + 12], "little")
    return None if count == _MANY else count


def _path_of(name: str) -> str:
    """The path of a member, without dots and slashes that say nothing."""
    return "/".join(PurePosixPath(name).parts)


def _damaged(member: Member, stage: str, reason: str) -> DamagedFileError:
    state = FileState(size_bytes=member.size_bytes, mtime_ns=member.mtime_ns, xxh3_64="")
    return DamagedFileError(stage, reason, state)


def _zip_age_s(info: zipfile.ZipInfo) -> int:
    """The modification time of a member; that of the first day if it is none, as Go and others write it."""
    try:
        return calendar.timegm((*info.date_time, 0, 0, 0))
    except ValueError:
        return calendar.timegm((1980, 1, 1, 0, 0, 0))


def _age_ns(modified_s: float) -> int:
    """A modification time in ns, within what a file may have."""
    return int(min(max(modified_s, 0), _LATEST_S) * _NS)


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Raises DatasetError where the block finds that the archive at `path` is damaged, or none."""
    try:
        yield
    except _DAMAGE + _gzip_errors() as error:
        raise DatasetError(
            f"{path} is damaged, or no archive ({error or type(error).__name__}); get it again"
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise DatasetError(f"{path} is damaged ({error}); get it again") from error  # bz2 says so


def _gzip_errors() -> tuple[type[Exception], ...]:
    try:
        import indexed_gzip
    except ImportError:
        return ()
    errors: tuple[type[Exception], ...] = (indexed_gzip.ZranError, indexed_gzip.NotCoveredError)
    return errors


def _indexed(path: Path, raw: BinaryIO, index: Path | None) -> Any:
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
