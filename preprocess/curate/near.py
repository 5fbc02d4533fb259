"""Search millions of 256-bit hashes for pairs that differ in few bits.

A hash is cut into 16 bands of 16 bits, in a fixed random order, because neighbouring bits are correlated. Hashes that
differ in at most 15 bits share a band, at most 31 bits a band that differs in one bit, and at most 47 bits a band that
differs in two bits, so each hash is compared only with hashes that share such a band (Norouzi, Punjani and Fleet, Fast
Exact Search in Hamming Space with Multi-Index Hashing, 2014). Among more than a million hashes, bands that differ in
two bits are not searched: 99 % of the pairs that differ in 40 bits are found, and 95 % of the pairs that differ in 48.

Both sides are copied in the order of each band in turn: the hashes to compare then lie next to each other in memory,
where random access would take ten times as long.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import combinations, repeat
from typing import NamedTuple

import numpy as np

from maskstream.shards.arrays import Int32s, Int64s, UInt8s, UInt16s, UInt64s
from maskstream.shards.errors import MaskstreamError
from maskstream.shards.lazy import importing

with importing():
    import numba


_BANDS, _BAND = 16, 16
_MANY = 1 << 20
_SMALL = 1 << 10
"""Up to this many hashes are compared with all others, which is faster than sorting."""
_MOST = 1 << 26
"""Largest number of pairs, of 16 bytes each; a search that finds more is refused."""
_AT_ONCE = 1 << 13
_CHANCE = 3
"""With this many more bits, it is unlikely that every band has one of the differing bits: 4e-5 for 18 bits in 16
bands.
"""
_BLOCK = 1 << 10
"""Number of hashes from other buckets that fit in the CPU cache while a bucket is compared with them."""


class _Sorted(NamedTuple):
    """Hashes in the order of a band: their positions, int32 (n,), the start of each bucket, int64 (65537,), and the
    hashes, uint64 (n, 4).
    """

    order: Int32s
    starts: Int64s
    words: UInt64s


def near(ours: UInt8s, others: UInt8s, distance: int, *, threads: int | None = None) -> Int64s:
    """Return the pairs of hashes that differ in at most `distance` bits.

    Args:
        ours: uint8 (n, 32).
        others: uint8 (m, 32); pass `ours` itself to compare hashes with each other.
        distance: Largest number of differing bits of 256.
        threads: Threads that search; one per core by default.

    Returns:
        int64 (P, 2), positions in `ours` and in `others`. Within one array each pair comes once, the smaller position
            first.

    Raises:
        MaskstreamError: There are more than 67 million pairs.
    """
    if not len(ours) or not len(others):
        return np.empty((0, 2), np.int64)
    itself = others is ours
    small = min(len(ours), len(others)) <= _SMALL  # then all are in one bucket
    mine = np.ascontiguousarray(ours).view(np.uint16) if small else _split_into_bands(ours)
    theirs = mine if itself else np.ascontiguousarray(others).view(np.uint16) if small else _split_into_bands(others)
    most = min(max(distance - _CHANCE, 0) // (_BANDS + 1), 1 if max(len(ours), len(others)) > _MANY else 2)
    bits = [1 << bit for bit in range(_BAND)]
    flips = [sum(some) for count in range(most + 1) for some in combinations(bits, count)]
    bands, keys, their_keys = _BANDS, mine, theirs
    if small:
        bands, flips, keys, their_keys = 1, [0], np.zeros_like(mine), np.zeros_like(theirs)
    found, total = [np.empty((0, 2), np.int64)], 0
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        for band in range(bands):
            own = _sort(keys, mine, band)
            other = own if itself else _sort(their_keys, theirs, band)
            firsts = range(0, len(ours), _AT_ONCE)
            lasts = (min(first + _AT_ONCE, len(ours)) for first in firsts)
            same = (keys, own, their_keys, other, band, np.array(flips, np.uint16), most, distance, itself, _MOST + 1)
            for some in pool.map(_join, firsts, lasts, *map(repeat, same)):
                found.append(some)
                total += len(some)
                if total > _MOST:
                    raise MaskstreamError(
                        f"more than {_MOST} pairs among {len(ours)} and {len(others)} frames match, so most samples "
                        "look the same. Remove those first with a rule (--keep), such as entropy>1 or still<0.9"
                    )
    return np.concatenate(found)


def _split_into_bands(hashes: UInt8s) -> UInt16s:
    """Return the bands of hashes, uint16 (n, 16): their bits in another order."""
    made, places = np.empty((len(hashes), _BANDS), np.uint16), _places()
    for first in range(0, len(hashes), _AT_ONCE):
        some, words = hashes[first : first + _AT_ONCE], made[first : first + _AT_ONCE].view(np.uint64)
        np.take(places[0], some[:, 0], axis=0, out=words)
        for byte in range(1, hashes.shape[1]):
            words |= places[byte].take(some[:, byte], axis=0)
    return made


@cache
def _places() -> UInt64s:
    """Return the target of the bits of a hash for each byte position and value, uint64 (32, 256, 4)."""
    order = np.random.default_rng(0).permutation(_BANDS * _BAND)
    alone = np.eye(32, dtype=np.uint8)[:, None] * np.arange(256, dtype=np.uint8)[:, None]
    return np.packbits(np.unpackbits(alone, axis=2)[:, :, order], axis=2).view(np.uint64)


def _sort(keys: UInt16s, bands: UInt16s, band: int) -> _Sorted:
    """Sort hashes, given as bands, by a column of keys; both uint16 (n, 16)."""
    order = np.argsort(keys[:, band], kind="stable")
    starts = np.searchsorted(keys[order, band], np.arange((1 << _BAND) + 1))
    return _Sorted(order.astype(np.int32), starts, bands.view(np.uint64)[order])


@numba.njit(nogil=True, cache=True)
def _join(  # type: ignore[no-untyped-def]
    first, last, ours, own, others, other, band, flips, most, distance, itself, limit
):
    """Return the pairs, int64 (P, 2), of the hashes from `first` to `last` in the order of a band, without pairs that
    an earlier band finds; at most `limit`.
    """
    found = np.empty((1024, 2), np.int64)
    count = 0
    while first < last:
        bucket = ours[own.order[first], band]
        end = min(last, own.starts[bucket + 1])
        for flip in flips:
            begin, stop = other.starts[bucket ^ flip], other.starts[(bucket ^ flip) + 1]
            if itself and (bucket ^ flip) < bucket:
                continue  # that bucket meets this one
            for low in range(begin, stop, _BLOCK):
                high = min(low + _BLOCK, stop)
                for query in range(first, end):
                    a, b, c, d = own.words[query]
                    for at in range(max(low, query + 1) if itself and flip == 0 else low, high):
                        half = _count_ones(a ^ other.words[at, 0]) + _count_ones(b ^ other.words[at, 1])
                        if half > distance:
                            continue
                        if half + _count_ones(c ^ other.words[at, 2]) + _count_ones(d ^ other.words[at, 3]) > distance:
                            continue
                        one, two = own.order[query], other.order[at]
                        before = 0
                        while before < band and _count_ones(np.uint64(ours[one, before] ^ others[two, before])) > most:
                            before += 1
                        if before < band:
                            continue
                        if count == limit:
                            return found
                        if count == len(found):
                            found = np.concatenate((found, np.empty_like(found)))[:limit]
                        found[count, 0] = min(one, two) if itself else one
                        found[count, 1] = max(one, two) if itself else two
                        count += 1
        first = end
    return found[:count].copy()


@numba.njit(nogil=True, cache=True)
def _count_ones(word):  # type: ignore[no-untyped-def]
    """Count the set bits of a uint64; LLVM compiles it to one instruction."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))
