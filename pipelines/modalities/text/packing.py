"""Packs documents into rows: which pieces of which documents stand in a row, from the lengths in the manifest alone.

A row holds pieces of documents of one shard. So rows are numbered shard by shard, as samples are, and their order,
lanes, blocks and mixtures are those of samples. What shares a row does not change between epochs; the order of rows
does. A document that is longer than a row is cut into pieces; each token of a split is in one row. `find_token_range`
finds where the values of a piece lie.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.shards.errors import DataError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.members.text import TOKEN_TYPES
from maskstream.shards.stores.base import Range

Int64s = npt.NDArray[np.int64]

SAMPLE, COUNT, FILE, RANGES = range(4)
"""The columns of pieces, parts of documents: the sample, the number of tokens, that of the file, and of each component
from `RANGES` on the first byte and the number of bytes.
"""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Packing:
    """The R rows of a split and their P pieces.

    shard_rows: int64 (shards,), the rows of each shard. start: int64 (R + 1,); row r has the pieces [start[r],
    start[r + 1]). sample, first, count: int64 (P,), the sample of a piece and its tokens [first, first + count).
    """

    shard_rows: Int64s
    start: Int64s
    sample: Int64s
    first: Int64s
    count: Int64s

    def __len__(self) -> int:
        return len(self.start) - 1

    def row(self, number: int) -> list[tuple[int, int, int]]:
        """The pieces of a row: sample, first token and number of tokens."""
        at = slice(int(self.start[number]), int(self.start[number + 1]))
        pieces = (self.sample[at].tolist(), self.first[at].tolist(), self.count[at].tolist())
        return list(zip(*pieces, strict=True))

    def rows(self, numbers: Int64s) -> tuple[Int64s, Int64s]:
        """The pieces of many rows, row after row: the place of each one's row in `numbers`, and its own number."""
        first, stop = self.start[numbers], self.start[numbers + 1]
        counts = stop - first
        row = np.repeat(np.arange(len(numbers)), counts)
        return row, np.arange(len(row)) + (first - np.cumsum(counts) + counts)[row]


def packed(lengths: Int64s, shard_samples: Int64s, room: int, extra: int) -> Packing:
    """The packing of documents of `lengths` tokens, int64 (N,), into rows of `room` tokens, shard by shard.

    extra: the special tokens that each piece takes besides its own. Documents of no tokens are left out. Pieces are
    taken longest first, and each goes into the fullest row that has room for it (best fit decreasing), or into a new
    one. ValueError if a row has no room for a token.
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
    """The rows of a shard whose first sample is `begin`, in the order of their first piece."""
    pieces = [
        (begin + i, at, min(most, length - at))
        for i, length in enumerate(lengths.tolist())
        for at in range(0, length, most)
    ]
    # Best fit decreasing. `free` is sorted by what is left, so the first row with enough room is the fullest one that
    # fits, and of equals the oldest. Rows without room for one more token leave the list, which keeps it short.
    rows: list[list[tuple[int, int, int]]] = []
    free: list[tuple[int, int]] = []  # tokens left in a row and its number, sorted
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
    """The packing with a row for each document, whole; a loader shows a window of one that is too long."""
    n = len(lengths)
    return Packing(
        shard_rows=shard_samples.astype(np.int64),
        start=np.arange(n + 1, dtype=np.int64),
        sample=np.arange(n, dtype=np.int64),
        first=np.zeros(n, np.int64),
        count=lengths.astype(np.int64),
    )


def find_token_range(manifest: Manifest, sample: int, name: str, first: int, count: int) -> Range:
    """The byte range of the values [first, first + count) of component `name` of a sample.

    SampleError if the sample lacks it, or its numbers in the manifest contradict each other.
    """
    where, offset, size = manifest.member(sample, name)
    with manifest.reading(sample, name):
        itemsize, facts = _dtype(manifest, sample, name).itemsize, manifest.components[name].facts
        n, begin = int(facts["n_tokens"][sample]), int(facts["data_offset"][sample])
        if begin < 0 or begin + n * itemsize != size or not 0 <= first < first + count <= n:
            raise DataError(
                f"has {size} bytes; the manifest says {n} tokens from byte {begin} on, and {first} to "
                f"{first + count - 1} are read"
            )
    return Range(where, offset + begin + first * itemsize, count * itemsize)


def read_token_dtype(manifest: Manifest, sample: int, name: str) -> np.dtype[np.unsignedinteger]:
    """The dtype of component `name` of a sample. SampleError if it is none of tokens."""
    with manifest.reading(sample, name):
        return _dtype(manifest, sample, name)


def _dtype(manifest: Manifest, sample: int, name: str) -> np.dtype[np.unsignedinteger]:
    words = manifest.components[name].words["dtype"]
    code = int(words.code[sample])
    dtype = words.names[code] if code >= 0 else ""
    if dtype not in TOKEN_TYPES:
        raise DataError(f"has the dtype {dtype!r} in the manifest; legal are {', '.join(TOKEN_TYPES)}")
    return np.dtype(dtype)
