"""Pack documents into rows: assign pieces of documents to rows, using only the lengths in the manifest.

A row contains pieces of documents of one shard. Rows are therefore numbered shard by shard, as samples are, and reuse
their order, lanes, blocks and mixtures. The contents of a row do not change between epochs; the order of rows does. A
document longer than a row is cut into pieces; each token of a split is in exactly one row. `find_token_range` locates
the values of a piece.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

from maskstream.shards.arrays import Int64s
from maskstream.shards.errors import DataError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.members.text import TOKEN_TYPES
from maskstream.shards.stores.base import Range

SAMPLE, COUNT, FILE, RANGES = range(4)
"""Columns of pieces (parts of documents): sample, number of tokens, number of the file, and from `RANGES` on, for each
component, the first byte and the number of bytes.
"""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Packing:
    """The R rows of a split and their P pieces."""

    shard_rows: Int64s
    """int64 (shards,): number of rows of each shard."""
    start: Int64s
    """int64 (R + 1,): row r has the pieces [start[r], start[r + 1])."""
    sample: Int64s
    """int64 (P,): sample of each piece."""
    first: Int64s
    """int64 (P,): first token of each piece."""
    count: Int64s
    """int64 (P,): number of tokens of each piece."""

    def __len__(self) -> int:
        return len(self.start) - 1

    def row(self, number: int) -> list[tuple[int, int, int]]:
        """Return the pieces of a row: sample, first token and number of tokens."""
        at = slice(int(self.start[number]), int(self.start[number + 1]))
        pieces = (self.sample[at].tolist(), self.first[at].tolist(), self.count[at].tolist())
        return list(zip(*pieces, strict=True))

    def rows(self, numbers: Int64s) -> tuple[Int64s, Int64s]:
        """List the pieces of many rows, row after row: the index of each piece's row in `numbers`, and the piece's
        number.
        """
        first, stop = self.start[numbers], self.start[numbers + 1]
        counts = stop - first
        row = np.repeat(np.arange(len(numbers)), counts)
        return row, np.arange(len(row)) + (first - np.cumsum(counts) + counts)[row]


def packed(lengths: Int64s, shard_samples: Int64s, room: int, extra: int) -> Packing:
    """Pack documents of `lengths` tokens, int64 (N,), into rows of `room` tokens, shard by shard.

    Pieces are placed longest first, each into the fullest row with enough room (best fit decreasing), or into a new
    one. Empty documents are skipped.

    Args:
        lengths: int64 (N,), tokens of each document.
        shard_samples: Number of samples of each shard.
        room: Tokens per row.
        extra: Special tokens that each piece takes in addition.

    Raises:
        ValueError: A row has no room for a single token.
    """
    most = room - extra
    if most < 1:
        raise ValueError(f"a row of {room} tokens has no room for a document with {extra} special tokens")
    shard_rows, sizes, parts, begin = [], [np.zeros(1, np.int64)], [np.empty((0, 3), np.int64)], 0
    for n in shard_samples.tolist():
        rows = _shard(lengths[begin : begin + n], begin, most, extra)
        shard_rows.append(len(rows))
        sizes.append(np.array([len(row) for row in rows], np.int64))
        parts.append(np.array([piece for row in rows for piece in row], np.int64).reshape(-1, 3))
        begin += n
    pieces = np.concatenate(parts)
    return Packing(
        shard_rows=np.array(shard_rows, np.int64),
        start=np.cumsum(np.concatenate(sizes)),
        sample=pieces[:, 0].copy(),
        first=pieces[:, 1].copy(),
        count=pieces[:, 2].copy(),
    )


def _shard(lengths: Int64s, begin: int, most: int, extra: int) -> list[list[tuple[int, int, int]]]:
    """Return the rows of a shard whose first sample is `begin`, in the order of their first piece."""
    pieces = [
        (begin + i, at, min(most, length - at))
        for i, length in enumerate(lengths.tolist())
        for at in range(0, length, most)
    ]
    # Best fit decreasing. `free` is sorted by remaining room, so the first row with enough room is the fullest that
    # fits, and the oldest among equals. Rows without room for another token leave the list, which keeps it short.
    rows: list[list[tuple[int, int, int]]] = []
    free: list[tuple[int, int]] = []  # remaining tokens of a row and its number, sorted
    for piece in sorted(pieces, key=lambda one: (-one[2], one[:2])):
        needed = piece[2] + extra
        at = bisect_left(free, (needed, -1))
        if at == len(free):
            left, row = most + extra, len(rows)
            rows.append([])
        else:
            left, row = free.pop(at)
        rows[row].append(piece)
        if left - needed > extra:
            insort(free, (left - needed, row))
    return [sorted(row) for row in sorted(rows, key=min)]


def pack_one_a_row(lengths: Int64s, shard_samples: Int64s) -> Packing:
    """Assign each whole document to its own row; loaders show a window of documents that are too long."""
    n = len(lengths)
    return Packing(
        shard_rows=shard_samples.astype(np.int64),
        start=np.arange(n + 1, dtype=np.int64),
        sample=np.arange(n, dtype=np.int64),
        first=np.zeros(n, np.int64),
        count=lengths.astype(np.int64),
    )


def find_token_range(manifest: Manifest, sample: int, name: str, first: int, count: int) -> Range:
    """Return the byte range of the values [first, first + count) of component `name` of a sample.

    Raises:
        SampleError: The sample lacks it, or its numbers in the manifest are inconsistent.
    """
    where, offset, size = manifest.member(sample, name)
    with manifest.reading(sample, name):
        itemsize, facts = _dtype(manifest, sample, name).itemsize, manifest.components[name].facts
        n, begin = int(facts["n_tokens"][sample]), int(facts["data_offset"][sample])
        if begin < 0 or begin + n * itemsize != size or not 0 <= first < first + count <= n:
            raise DataError(
                f"has {size} bytes; the manifest lists {n} tokens from byte {begin} on, and tokens {first} to "
                f"{first + count - 1} were requested"
            )
    return Range(where, offset + begin + first * itemsize, count * itemsize)


def read_token_dtype(manifest: Manifest, sample: int, name: str) -> np.dtype[np.unsignedinteger]:
    """Return the dtype of component `name` of a sample.

    Raises:
        SampleError: It is not a token dtype.
    """
    with manifest.reading(sample, name):
        return _dtype(manifest, sample, name)


def _dtype(manifest: Manifest, sample: int, name: str) -> np.dtype[np.unsignedinteger]:
    words = manifest.components[name].words["dtype"]
    code = int(words.code[sample])
    dtype = words.names[code] if code >= 0 else ""
    if dtype not in TOKEN_TYPES:
        raise DataError(f"has the dtype {dtype!r} in the manifest; expected {', '.join(TOKEN_TYPES)}")
    return np.dtype(dtype)
