"""Block checksums of a file: they check any range without reading the rest of the file.

The sums of `NAME.tar` are in `NAME.sums`, and the sums of `NAME.packets` in `NAME.packets.sums`. Such a file holds the
big-endian xxh3_64 of each 4 KiB block, in order; the last block may be shorter. The sums reveal changed bytes, which a
video decoder often decodes without an error.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

import xxhash

from maskstream.shards.errors import StoreError

from .base import Range

_log = logging.getLogger(__name__)
_SAID: set[str] = set()

SUMS = ".sums"
SUMS_OF = {".tar": SUMS, ".packets": f".packets{SUMS}"}
"""Suffix of the sums file, by the suffix of the file that it checks."""
BLOCK_BYTES = 4096
SUM_BYTES = 8
_FEW_BITS = 8
"""If a sum differs in at most this many bits, the sum itself is damaged. A changed block changes so few bits of its sum
in only 1 of 4 billion cases.
"""


class BlockSums:
    """Computes the sums of bytes that arrive in parts of any size."""

    def __init__(self) -> None:
        self._begun = b""
        self._sums = bytearray()

    def update(self, data: bytes) -> None:
        """Add the next bytes."""
        # Bytes arrive in parts of any size, but sums cover whole blocks. The incomplete last block waits for the
        # next part, or for `digest`, where the last block may be shorter.
        whole = self._begun + data if self._begun else data
        end = len(whole) // BLOCK_BYTES * BLOCK_BYTES
        self._sums += sum_blocks(memoryview(whole)[:end])
        self._begun = bytes(whole[end:])

    def digest(self) -> bytes:
        """Return the contents of the sums file."""
        return bytes(self._sums) + sum_blocks(memoryview(self._begun))


def sum_blocks(data: memoryview) -> bytes:
    """Return the sums of bytes that start at a block boundary."""
    digest = xxhash.xxh3_64_digest
    if 0 < len(data) <= BLOCK_BYTES:
        return digest(data)
    return b"".join([digest(data[at : at + BLOCK_BYTES]) for at in range(0, len(data), BLOCK_BYTES)])


def compute_sums_size(size_bytes: int) -> int:
    """Compute the size of the sums file of a tar with `size_bytes` bytes."""
    return -(-size_bytes // BLOCK_BYTES) * SUM_BYTES


def find_blocks_around(offset: int, size: int, size_bytes: int) -> tuple[int, int]:
    """Return the bytes [begin, end) of the blocks that cover a range of a tar with `size_bytes` bytes."""
    return offset // BLOCK_BYTES * BLOCK_BYTES, min(-(-(offset + size) // BLOCK_BYTES) * BLOCK_BYTES, size_bytes)


def group_runs_of_blocks(ranges: Sequence[Range]) -> list[list[int]]:
    """Group the numbers of ranges whose blocks overlap or touch, ordered by file and offset."""
    runs: list[list[int]] = []
    last, end = "", -1
    for n in sorted(range(len(ranges)), key=ranges.__getitem__):
        name, offset, size = ranges[n]
        block, stop = offset // BLOCK_BYTES, -(-(offset + size) // BLOCK_BYTES)
        if name == last and block <= end:
            runs[-1].append(n)
            end = max(end, stop)
        else:
            runs.append([n])
            last, end = name, stop
    return runs


@lru_cache(maxsize=1 << 12)
def name_sums_file(name: str) -> str | None:
    """Return the name of a file's sums file; None if files of its kind have none.

    It is in the split's folder, even if the tar is elsewhere.
    """
    path = PurePosixPath(name)
    return path.with_suffix(SUMS_OF[path.suffix]).name if path.suffix in SUMS_OF else None


def find_sums_range(begin: int, size: int) -> tuple[int, int]:
    """Return offset and size, in the sums file, of the sums of the blocks in `size` bytes from byte `begin` on."""
    return begin // BLOCK_BYTES * SUM_BYTES, compute_sums_size(size)


def say_unchecked(location: str, sums: str) -> None:
    """Warn, once per process and location, that a sums file is missing."""
    if location not in _SAID:
        _SAID.add(location)
        _log.warning(
            "%s has no %s, so damaged reads are not detected; copy the %s files too, or rewrite them with "
            "`maskstream verify %s --repair`",
            location,
            sums,
            SUMS,
            location,
        )


def check_blocks(path: str | Path, begin: int, data: bytes, wanted: bytes) -> None:
    """Raise StoreError if `data`, the blocks from byte `begin` of the file at `path`, differ from the sums `wanted`.

    A changed block changes about half of the bits of its sum. So a sum with few changed bits is itself damaged, as the
    message explains.
    """
    found = sum_blocks(memoryview(data))
    if found == wanted:
        return
    # Report the first block that differs. If its sum differs in few bits, the sum is damaged and not the block: see
    # `_FEW_BITS`.
    n = next(n for n in range(0, len(found), SUM_BYTES) if found[n : n + SUM_BYTES] != wanted[n : n + SUM_BYTES])
    one, other = (int.from_bytes(sums[n : n + SUM_BYTES], "big") for sums in (found, wanted))
    at = begin + n // SUM_BYTES * BLOCK_BYTES
    if 0 < (one ^ other).bit_count() <= _FEW_BITS:
        raise StoreError(
            f"{path}: the checksum of bytes {at} to {min(at + BLOCK_BYTES, begin + len(data))} in its {SUMS} file is "
            "damaged, so these bytes cannot be checked; list all damage with `maskstream verify`"
        )
    raise StoreError(
        f"{path}: bytes {at} to {min(at + BLOCK_BYTES, begin + len(data))} differ from what was written; list "
        "all damage with `maskstream verify`"
    )
