"""Write the parts of a manifest, one group of shards after another, and accumulate the totals for dataset.json.

Only the rows of one part are in memory at a time. For all other rows, memory contains only an 8-byte hash per key,
which proves at the end that no key is repeated, whatever the length of the keys.
"""

import hashlib
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from maskstream.shards.arrays import UInt64s
from maskstream.shards.errors import ShardError
from maskstream.shards.members.video import VIDEO

from .checked_file import facts_of
from .columns import build_part_table
from .records import ShardRecord

Hashes = npt.NDArray[np.uint64]


def hash_keys(keys: Iterable[str]) -> Hashes:
    """Return the xxh3_64 of each key, uint64 (N,)."""
    return np.fromiter((xxhash.xxh3_64_intdigest(key.encode()) for key in keys), np.uint64)


def find_repeated_keys(hashes: list[Hashes], keys: Iterable[Iterable[str]]) -> list[str]:
    """Return the keys that occur more than once, sorted.

    hashes: Hashes of the keys, in any number of arrays; the list is emptied, so that they are in memory only once.
    keys: The same keys, group by group; they are read only if two hashes are equal, since different keys may have the
    same hash.
    """
    ordered = np.empty(sum(map(len, hashes)), np.uint64)
    end = 0
    while hashes:
        some = hashes.pop()
        ordered[end : end + len(some)] = some
        end += len(some)
        del some
    ordered.sort()
    twice = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not twice:
        return []
    found = Counter(key for group in keys for key in group if xxhash.xxh3_64_intdigest(key.encode()) in twice)
    return sorted(key for key, count in found.items() if count > 1)


_PART = re.compile(r"manifest-(\d{6})\.parquet")
PART_SAMPLES = 1 << 15
"""Maximum number of samples in a part with more than one shard; in memory, their records take about 50 MB."""


def part_name(number: int) -> str:
    """Return the file name of a part."""
    return f"manifest-{number:06d}.parquet"


def parse_part_number(name: str) -> int | None:
    """Return the number in the file name of a part; None for a part in another folder."""
    found = _PART.fullmatch(name)
    return int(found[1]) if found else None


class PartWriter:
    """Writes shards, which must arrive in the order of their names, into parts.

    Args:
        publish: Function that writes a file with a name and contents.
        first: Number of the first part.
    """

    def __init__(self, publish: Callable[[str, bytes], None], first: int = 0) -> None:
        self.parts: list[dict[str, Any]] = []
        """The parts, as listed in dataset.json."""
        self.files: dict[str, dict[str, Any]] = {}
        """Size and checksum of each part."""
        self.names = hashlib.sha256()
        """Hash of the shards' names and checksums."""
        self.hashes: list[UInt64s] = []
        """The hashes of the keys, part by part."""
        self._publish = publish
        self._number = first
        self._rows = 0
        self._shards: list[ShardRecord] = []
        self._counts = Counter({"samples": 0, "shards": 0, "bytes": 0})
        self._sums: dict[str, list[list[float]]] = {}
        self._last = ""

    def add(self, shard: ShardRecord) -> None:
        """Add the next shard. Raise ShardError if its name does not come after the previous one."""
        if shard.name <= self._last:
            raise ShardError(
                f"the shard {shard.name!r} comes after {self._last!r}; pass each shard once, in name order"
            )
        if self._shards and self._rows + len(shard.rows) > PART_SAMPLES:
            self._write()
        self._last = shard.name
        self._shards.append(shard)
        self._rows += len(shard.rows)

    def finish(self) -> None:
        """Write the last part."""
        if self._shards:
            self._write()

    @property
    def counts(self) -> dict[str, int]:
        """Return the numbers of samples, shards and bytes, and of frames if there are videos."""
        return dict(self._counts)

    @property
    def sums(self) -> dict[str, list[float]]:
        """Return the sums over all samples (see `Sample`), independent of their order."""
        return {name: [math.fsum(parts) for parts in columns] for name, columns in sorted(self._sums.items())}

    def _write(self) -> None:
        shards, self._shards, self._rows = self._shards, [], 0
        rows = [row for shard in shards for row in shard.rows]
        name = part_name(self._number)
        data = encode_parquet(build_part_table(shards))
        self._publish(name, data)
        self._number += 1
        self.parts.append({"name": name, "samples": len(rows), "shards": len(shards)})
        self.files[name] = facts_of(data)
        self.hashes.append(hash_keys(row.key for row in rows))
        for shard in shards:
            self.names.update(f"{shard.name} {shard.sha256}\n".encode())
        self._counts.update(samples=len(rows), shards=len(shards), bytes=sum(shard.size_bytes for shard in shards))
        videos = [member for row in rows for member in row.members.values() if member.kind == VIDEO.name]
        if videos:
            self._counts["frames"] += sum(int(video.facts["n_frames"]) for video in videos)
        for row in rows:
            for word, values in row.sums.items():
                columns = self._sums.setdefault(word, [[] for _ in values])
                for parts, value in zip(columns, values, strict=True):
                    _add_exactly(parts, value)


def _add_exactly(parts: list[float], value: float) -> None:
    """Add a number to the exact sum in `parts`, a few non-overlapping numbers (Shewchuk 1997)."""
    kept = 0
    for part in parts:
        if abs(value) < abs(part):
            value, part = part, value
        high = value + part
        if low := part - (high - value):
            parts[kept] = low
            kept += 1
        value = high
    parts[kept:] = [value]


def encode_parquet(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=PART_SAMPLES)
    return buffer.getvalue()
