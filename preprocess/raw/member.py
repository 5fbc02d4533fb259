"""The members of an archive of raw data: their names, sizes and ages, and which of them are refused."""

from __future__ import annotations

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from maskstream.shards.errors import DatasetError

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


def checked_name(path: Path, name: str, size_bytes: int) -> str | None:
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
    return plain_name(name)


def plain_name(name: str) -> str:
    """The path of a member, without dots and slashes that say nothing."""
    return "/".join(PurePosixPath(name).parts)


def age_ns(modified_s: float) -> int:
    """A modification time in ns, within what a file may have."""
    return int(min(max(modified_s, 0), _LATEST_S) * _NS)


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Raises DatasetError where the block finds that the archive at `path` is damaged, or none."""
    try:
        yield
    except _DAMAGE + gzip_errors() as error:
        raise DatasetError(
            f"{path} is damaged, or no archive ({error or type(error).__name__}); get it again"
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise DatasetError(f"{path} is damaged ({error}); get it again") from error  # bz2 says so


def gzip_errors() -> tuple[type[Exception], ...]:
    """What indexed_gzip raises of damage; nothing if it is not installed."""
    try:
        import indexed_gzip
    except ImportError:
        return ()
    errors: tuple[type[Exception], ...] = (indexed_gzip.ZranError, indexed_gzip.NotCoveredError)
    return errors
