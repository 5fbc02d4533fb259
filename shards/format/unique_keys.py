"""Finds keys that occur twice among many, by their hashes: 8 bytes per key, whatever its length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]


def hashes_of(keys: Iterable[str]) -> Hashes:
    """The xxh3_64 of each key, uint64 (N,)."""
    return np.fromiter((xxhash.xxh3_64_intdigest(key.encode()) for key in keys), np.uint64)


def repeated_keys(hashes: list[Hashes], keys: Iterable[Iterable[str]]) -> list[str]:
    """The keys that occur more than once, sorted.

    hashes: of the keys, in any number of arrays; the list is emptied, so that they are in memory once. keys: the same
    keys, group by group; they are only gone through if two hashes are equal, since different keys may have the same
    hash.
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
