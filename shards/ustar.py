"""The members of a USTAR tar, in one pass, with nothing that its headers say believed beyond the file's own size.

`tarfile` is not used for walking: a damaged header with a huge or negative size keeps it busy for ever.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

from .errors import ShardError

BLOCK_BYTES = 512
CHUNK_BYTES = 1 << 20

_MAGIC = b"ustar\x0000"


class HashedReader:
    """Reads a file from start to end, keeping its sha256; `advance` is told of every MiB or so, and of the rest."""

    def __init__(self, file: BinaryIO, advance: Callable[[int], None]) -> None:
        self._file = file
        self._advance = advance
        self._untold = 0
        self.size_bytes = os.fstat(file.fileno()).st_size
        self.position = 0
        self.sha256 = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end of the file."""
        data = self._file.read(size)
        self.sha256.update(data)
        self.position += len(data)
        self._untold += len(data)
        if self._untold >= CHUNK_BYTES or (size and not data):
            self._advance(self._untold)
            self._untold = 0
        return data

    def chunks(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes in pieces of at most 1 MiB."""
        end = self.position + size
        while data := self.read(min(CHUNK_BYTES, end - self.position)):
            yield data


def walk(reader: HashedReader) -> Iterator[tarfile.TarInfo]:
    """Yield each member with `offset_data`, the reader standing at its data, of which as much may be read as one likes.

    Ends at the end-of-archive block; raises ShardError where the file ends before it, or a header is none of USTAR's.
    """
    while True:
        start = reader.position
        header = reader.read(BLOCK_BYTES)
        if header == bytes(BLOCK_BYTES):
            return
        if len(header) < BLOCK_BYTES:
            raise ShardError(f"the tar ends at byte {reader.position} without an end-of-archive block")
        try:
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise ShardError(f"the tar has no header at byte {start} ({error})") from error
        if header[257:265] != _MAGIC:
            raise ShardError(f"the header at byte {start} is not of USTAR but {header[257:265]!r}")
        member.offset, member.offset_data = start, reader.position
        room = reader.size_bytes - reader.position
        if not 0 <= member.size <= room:
            raise ShardError(
                f"the member {member.name!r} at byte {start} claims {member.size} bytes, the file has {room}"
            )
        yield member
        stored = member.size if member.isreg() else 0
        end = member.offset_data + -(-stored // BLOCK_BYTES) * BLOCK_BYTES
        for _ in reader.chunks(end - reader.position):
            pass
