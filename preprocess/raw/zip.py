"""The members of a zip, and what tells that its list lacks some."""

from __future__ import annotations

import calendar
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from maskstream.shards.errors import DatasetError

from .member import ArchiveMember, Contents, age_ns, checked_name, plain_name

_LOCAL_HEADER, _END_OF_ZIP = b"PK\x03\x04", b"PK\x05\x06"
_END_BYTES, _MANY = 22, 0xFFFF
_MOST_END_BYTES = _END_BYTES + _MANY
"""The end of a zip has a comment of up to 65,535 bytes."""


class ZipMembers:
    """The members of the zip at `path`, which is open as `raw`."""

    def __init__(self, path: Path, raw: BinaryIO) -> None:
        self._path, self._raw = path, raw
        self._zip = zipfile.ZipFile(raw)
        self._headers = {(info.header_offset, plain_name(info.filename)): info for info in self._zip.infolist()}

    def close(self) -> None:
        """Nothing is open but the file itself."""

    def contents(self) -> Contents:
        """The members, by the list at its end."""
        return Contents({member.name: member for member in self._listed()}, self._damage())

    def _listed(self) -> Iterator[ArchiveMember]:
        for info in self._zip.infolist():
            name = checked_name(self._path, info.filename, info.file_size)
            if info.is_dir() or name is None:
                continue
            if stat.S_ISLNK(info.external_attr >> 16) or info.flag_bits & 1:
                raise DatasetError(f"{self._path} holds {name!r}, which is a link or encrypted; unpack it")
            yield ArchiveMember(name, info.file_size, age_ns(_zip_age_s(info)), info.header_offset)

    def _damage(self) -> str:
        """What tells that members of a zip are not in its list; "" if nothing does."""
        listed, raw = self._zip.infolist(), self._raw
        count = _declared_count(raw)
        if count not in (None, len(listed) & _MANY):
            return f"its list has {len(listed)} files, and its end says {count}"
        raw.seek(0)
        if (first := min((info.header_offset for info in listed), default=0)) < 0:
            return f"it lacks {-first} bytes before its list"
        if first and raw.read(4) == _LOCAL_HEADER:
            return f"its list of {len(listed)} files leaves out what is before them; zips were joined with cat"
        return ""

    def packed_bytes(self, member: ArchiveMember) -> int | None:
        """How many bytes a member takes in the zip; None if it is not there."""
        info = self._headers.get((member.offset, member.name))
        return None if info is None else info.compress_size

    @contextmanager
    def open(self, member: ArchiveMember) -> Iterator[IO[bytes]]:
        """The bytes of a member. Raises ValueError if it is not there."""
        info = self._headers.get((member.offset, member.name))
        if info is None or info.header_offset < 0:
            raise ValueError(f"there is no member at {member.offset}")
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


def _zip_age_s(info: zipfile.ZipInfo) -> int:
    """The modification time of a member; that of the first day if it is none, as Go and others write it."""
    try:
        return calendar.timegm((*info.date_time, 0, 0, 0))
    except ValueError:
        return calendar.timegm((1980, 1, 1, 0, 0, 0))
