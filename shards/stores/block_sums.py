"""Checksums of a tar's blocks, in `NAME.sums` beside it: any range of it can be checked without reading the rest.

The file holds the xxh3_64 of each 4 KiB of the tar, big-endian, in order; the last block is what is left. They tell of
bytes that changed on their way, which a decoder of video often shows without a word.
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
    """The sums of bytes that come in pieces of any size."""

    def __init__(self) -> None:
        self._begun = b""
        self._sums = bytearray()

    def update(self, data: bytes) -> None:
        """Takes the next bytes."""
        whole = self._begun + data if self._begun else data
        end = len(whole) // BLOCK_BYTES * BLOCK_BYTES
        self._sums += sums_of(memoryview(whole)[:end])
        self._begun = bytes(whole[end:])

    def digest(self) -> bytes:
        """The contents of the file of sums."""
        return bytes(self._sums) + sums_of(memoryview(self._begun))


def sums_of(data: memoryview) -> bytes:
    """The sums of bytes that begin at the edge of a block."""
    digest = xxhash.xxh3_64_digest
    return b"".join([digest(data[at : at + BLOCK_BYTES]) for at in range(0, len(data), BLOCK_BYTES)])


def write_sums(path: Path, sums: BlockSums) -> None:
    """Writes the file that is there whole or not at all."""
    publish(path, sums.digest())


def sums_bytes(size_bytes: int) -> int:
    """How large the file of sums of a tar of that size is."""
    return -(-size_bytes // BLOCK_BYTES) * SUM_BYTES


def blocks_around(offset: int, size: int, size_bytes: int) -> tuple[int, int]:
    """The bytes [begin, end) of the whole blocks that hold a range of a tar of `size_bytes`."""
    return offset // BLOCK_BYTES * BLOCK_BYTES, min(-(-(offset + size) // BLOCK_BYTES) * BLOCK_BYTES, size_bytes)


def check_blocks(path: Path, begin: int, data: bytes, sums: int) -> None:
    """StoreError where `data`, whole blocks from byte `begin` of the tar at `path`, are not those that were written.

    `sums` is a descriptor of its file of sums.
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
            f"{path}: bytes {at} to {min(at + BLOCK_BYTES, begin + len(data))} are not those that were written; "
            "`maskstream verify` lists all that is damaged"
        )
