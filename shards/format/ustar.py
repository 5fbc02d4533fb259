"""Iterates over the members of a tar in one pass and checks the sizes in headers against the file size.

Shards must be USTAR. Foreign tars may also be GNU, PAX or pre-POSIX tars. `tarfile` is not used to iterate, because a
damaged header with a huge or negative size makes it loop forever.

NVIDIA DALI's `fn.readers.webdataset` reads the `.idx` file of a tar instead of its headers. Its format is v1.2, byte
for byte as DALI's `wds2idx` writes it: a line `v1.2 N`, then a line for each of the N samples with `ending offset size
member-name` for each component, in the order of the tar.
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import BinaryIO, Protocol

from maskstream.shards.errors import ShardError
from maskstream.shards.stores.block_sums import BlockSums

BLOCK_BYTES = 512
CHUNK_BYTES = 1 << 20

_MAGIC = b"ustar\x0000"
_GNU_LONG_NAME, _GNU_LONG_LINK, _PAX, _PAX_GLOBAL, _PAX_SOLARIS = b"L", b"K", b"x", b"g", b"X"
_EXTENSIONS = (_GNU_LONG_NAME, _GNU_LONG_LINK, _PAX, _PAX_GLOBAL, _PAX_SOLARIS)
_GZIP = b"\x1f\x8b"
MAX_EXTENSION_BYTES = 1 << 20
"""Maximum size of an extension header, which only extends the next header."""

MAX_PADDING_BYTES = (1 << 20) + 2 * BLOCK_BYTES
"""Maximum number of zeros at the end: programs fill the last record, of 10 kB by default and 1 MiB on tapes."""


class TarReader(Protocol):
    """Reads a tar from start to end. `position` is the current byte, of `size_bytes`."""

    size_bytes: int
    position: int

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end of the file."""
        ...

    def chunks(self, size: int) -> Iterator[bytes]:
        """Return the next `size` bytes; a reader may skip them and return none."""
        ...


class HashedReader:
    """Reads a file from start to end and computes its sha256 and block sums. Calls `advance` with the bytes read, about
    once per MiB.
    """

    def __init__(self, file: BinaryIO, advance: Callable[[int], None]) -> None:
        self._file = file
        self._advance = advance
        self._unreported = 0
        self.size_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)
        self.position = 0
        self.sha256 = hashlib.sha256()
        self.sums = BlockSums()

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end of the file."""
        data = self._file.read(size)
        self.sha256.update(data)
        self.sums.update(data)
        self.position += len(data)
        self._unreported += len(data)
        if self._unreported >= CHUNK_BYTES or (size and not data):
            self._advance(self._unreported)
            self._unreported = 0
        return data

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes in chunks of at most 1 MiB."""
        end = self.position + size
        while data := self.read(min(CHUNK_BYTES, end - self.position)):
            yield data


def walk(reader: TarReader, *, foreign: bool = False) -> Iterator[tarfile.TarInfo]:
    """Yield each member with `offset_data`. The reader is then at the member's data, and the caller may read any part
    of it.

    The archive ends with two blocks of zeros, followed only by zeros. Raises ShardError if the file ends earlier, if
    other data follow (for example because a header was zeroed), or if a header is not USTAR. With `foreign`, GNU and
    PAX tars are read too, with the long names and sizes of their extension headers.
    """
    extended: dict[str, str] = {}
    while True:
        start = reader.position
        header = reader.read(BLOCK_BYTES)
        if header == bytes(BLOCK_BYTES):
            _check_end(reader, start)
            return
        if len(header) < BLOCK_BYTES:
            raise ShardError(f"the tar ends at byte {reader.position} without an end-of-archive block")
        try:
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            hint = "; it is compressed, so unpack it with gunzip first" if header.startswith(_GZIP) else ""
            raise ShardError(f"the tar has no header at byte {start} ({error}){hint}") from error
        if not foreign and header[257:265] != _MAGIC:
            raise ShardError(f"the header at byte {start} is {header[257:265]!r}, not USTAR")
        member.offset, member.offset_data = start, reader.position
        is_extension = foreign and member.type in _EXTENSIONS
        if not is_extension:
            _extend(member, extended)
            extended = {}
        left = reader.size_bytes - reader.position
        if not 0 <= member.size <= left:
            raise ShardError(
                f"the member {member.name!r} at byte {start} declares {member.size} bytes, but only {left} "
                "bytes are left in the file"
            )
        if is_extension:
            extended |= _read_extension(member, reader)
        else:
            yield member
        stored = member.size if is_extension or member.isreg() else 0
        end = member.offset_data + -(-stored // BLOCK_BYTES) * BLOCK_BYTES
        for _ in reader.chunks(end - reader.position):
            pass


def _check_end(reader: TarReader, start: int) -> None:
    """Raise ShardError unless the block of zeros at `start` is followed by a second one and only zeros after it."""
    if reader.read(BLOCK_BYTES) != bytes(BLOCK_BYTES):
        raise ShardError(f"the tar has a single block of zeros at byte {start}; expected two at the end of an archive")
    while data := reader.read(CHUNK_BYTES):
        if data.count(0) != len(data):
            raise ShardError(
                f"the tar continues after its end at byte {start}; a header was zeroed, or tars were joined with cat"
            )
    if reader.position % BLOCK_BYTES:
        raise ShardError(
            f"the tar has {reader.position} bytes, not a multiple of {BLOCK_BYTES}, so part of it is missing"
        )
    if reader.position - start > MAX_PADDING_BYTES:
        raise ShardError(
            f"the tar contains only zeros from byte {start} to its end at {reader.position}; more than "
            f"{MAX_PADDING_BYTES} zeros indicate an unfinished download"
        )


def _read_extension(member: tarfile.TarInfo, reader: TarReader) -> dict[str, str]:
    """Return the fields of a GNU or PAX extension header for the next member, such as `path` and `size`."""
    if member.size > MAX_EXTENSION_BYTES:
        raise ShardError(
            f"the header at byte {member.offset} has {member.size} bytes; at most {MAX_EXTENSION_BYTES} are allowed"
        )
    data = reader.read(member.size)
    if member.type == _GNU_LONG_NAME:
        return {"path": data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")}
    if member.type in (_GNU_LONG_LINK, _PAX_GLOBAL):
        return {}
    found, at = {}, 0
    while at < len(data):
        length, _, _ = data[at : at + 20].partition(b" ")
        record = data[at : at + int(length)] if length.isdigit() else b""
        name, equals, value = record[len(length) + 1 : -1].partition(b"=")
        if not equals or not record.endswith(b"\n") or len(record) != int(length):
            raise ShardError(f"the PAX header at byte {member.offset} is damaged")
        found[name.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        at += len(record)
    return found


def _extend(member: tarfile.TarInfo, extended: dict[str, str]) -> None:
    if member.type == tarfile.GNUTYPE_SPARSE or any(name.startswith("GNU.sparse") for name in extended):
        raise ShardError(
            f"the member {member.name!r} at byte {member.offset} is sparse; pack it again without --sparse"
        )
    member.name = extended.get("path", member.name)
    if "mtime" in extended:
        with suppress(ValueError):
            member.mtime = float(extended["mtime"])
    size = extended.get("size", str(member.size))
    if not size.lstrip("-").isdigit():
        raise ShardError(f"the PAX header before byte {member.offset} declares the size {size!r}")
    member.size = int(size)


Span = tuple[int, int]
"""Offset of a member's data in the tar, and its size, in bytes."""


def format_idx(samples: Iterable[tuple[str, Mapping[str, Span]]]) -> str:
    """Return the index of samples, which are (key, component -> span) in the order of the tar. Erased samples have no
    spans and no line.
    """
    lines = [
        " ".join(f"{name} {offset} {size} {key}.{name}" for name, (offset, size) in spans.items())
        for key, spans in samples
        if spans
    ]
    return "\n".join([f"v1.2 {len(lines)}", *lines]) + "\n"


_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)


def split_name(name: str) -> tuple[str, str] | None:
    """Return the key (with its folders) and the component (in lower case) of a member; None if it belongs to no sample.

    As in WebDataset, a name without folders that begins with two underscores is metadata, and a base name that begins
    with a dot, or has no dot, is ignored.
    """
    found = _NAME.fullmatch(name)
    if found is None or ("/" not in name and name.startswith("__")):
        return None
    return found[1], found[2].lower()


def format_indexed_name(name: str) -> str:
    """Return the name with its component in lower case, as in the manifest."""
    split = split_name(name)
    return name if split is None else ".".join(split)
