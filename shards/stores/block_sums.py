"""Block checksums of a tar, in the file `NAME.sums`: they check any range without reading the rest of the tar.

The file holds the big-endian xxh3_64 of each 4 KiB block of the tar, in order; the last block may be shorter. The sums
reveal changed bytes, which a video decoder often decodes without an error.
"""

from __future__ import annotations

import os
from pathlib import Path

import xxhash

from ..errors import StoreError
from .publish import publish

SUMS = ".sums"
BLOCK_BYTES = 4096
SUM_BYTES = 8


class BlockSums:
    """Computes the sums of bytes that arrive in parts of any size."""

    def __init__(self) -> None:
        self._begun = b""
        self._sums = bytearray()

    def update(self, data: bytes) -> None:
        """Add the next bytes."""
        whole = self._begun + data if self._begun else data
        end = len(whole) // BLOCK_BYTES * BLOCK_BYTES
        self._sums += sums_of(memoryview(whole)[:end])
        self._begun = bytes(whole[end:])

    def digest(self) -> bytes:
        """The contents of the sums file."""
        return bytes(self._sums) + sums_of(memoryview(self._begun))


def sums_of(data: memoryview) -> bytes:
    """The sums of bytes that start at a block boundary."""
    digest = xxhash.xxh3_64_digest
    return b"".join([digest(data[at : at + BLOCK_BYTES]) for at in range(0, len(data), BLOCK_BYTES)])


def write_sums(path: Path, sums: BlockSums) -> None:
    """Publish a sums file."""
    publish(path, sums.digest())


def sums_bytes(size_bytes: int) -> int:
    """The size of the sums file of a tar with `size_bytes` bytes."""
    return -(-size_bytes // BLOCK_BYTES) * SUM_BYTES


def blocks_around(offset: int, size: int, size_bytes: int) -> tuple[int, int]:
    """The bytes [begin, end) of the blocks that hold a range of a tar with `size_bytes` bytes."""
    return offset // BLOCK_BYTES * BLOCK_BYTES, min(-(-(offset + size) // BLOCK_BYTES) * BLOCK_BYTES, size_bytes)


def check_blocks(path: Path, begin: int, data: bytes, sums: int) -> None:
    """Raise StoreError if `data`, the blocks from byte `begin` of the tar at `path`, differ from their sums.

    `sums` is a file descriptor of the sums file.
    """
    first = begin // BLOCK_BYTES
    wanted = os.pread(sums, sums_bytes(len(data)), first * SUM_BYTES)
    found = sums_of(memoryview(data))
    if found != wanted:
        block = next(
            n for n in range(0, len(found), SUM_BYTES) if found[n : n + SUM_BYTES] != wanted[n : n + SUM_BYTES]
        )
        at = begin + block // SUM_BYTES * BLOCK_BYTES
        raise StoreError(
            f"{path}: bytes {at} to {min(at + BLOCK_BYTES, begin + len(data))} are not those that were written; list "
            "all damage with `maskstream verify`"
        )
