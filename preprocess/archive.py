"""An archive of raw data: what is in it, and its members one by one, without unpacking it.

An archive ends in .tar, .tar.gz, .tgz or .zip, or is cut into parts whose names end in -00, -01, and so on, as those of
Something-Something V2. In a tar that is compressed with gzip, indexed_gzip finds every member after one pass.
"""

from __future__ import annotations

import calendar
import lzma
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
from typing import IO, Any, BinaryIO, cast

import xxhash

from ..shards.errors import DatasetError, OutageError
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

    def members(self) -> dict[str, Member]:
        """The files in it by name, in their order, but for hidden ones. It is read whole if it is compressed as one.

        The last one of several with the same name counts, as where the archive is unpacked. Raises DatasetError for
        links, names outside the archive, members that are too large, encrypted ones, and damage.
        """
        with damage(self.path):
            if self.is_gzip:
                self._gzip.build_full_index()  # which also compares its checksum
            return {member.name: member for member in (self._in_zip() if self._zip else self._in_tar())}

    def _in_tar(self) -> Iterator[Member]:
        with tarfile.open(fileobj=self._stream, mode="r:") as tar:
            for info in tar:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all
                name = self._checked(info.name, info.size)
                if info.isdir() or name is None:
                    continue
                if not info.isreg() or info.issparse():
                    raise DatasetError(f"{self.path} holds {name!r}, which is a link or no plain file; unpack it")
                yield Member(name, info.size, _age_ns(info.mtime), info.offset_data)

    def _in_zip(self) -> Iterator[Member]:
        assert self._zip is not None
        for info in self._zip.infolist():
            name = self._checked(info.filename, info.file_size)
            if info.is_dir() or name is None:
                continue
            if stat.S_ISLNK(info.external_attr >> 16) or info.flag_bits & 1:
                raise DatasetError(f"{self.path} holds {name!r}, which is a link or encrypted; unpack it")
            yield Member(name, info.file_size, _age_ns(_zip_age_s(info)), info.header_offset)

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
        """Write the index of its gzip, after `members`. No other process may do the same at that time."""
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
        elif (info := self._headers.get((member.offset, member.name))) is None:
            raise ValueError(f"there is no member at {member.offset}")
        else:
            with self._zip.open(info) as stream:
                yield stream


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
