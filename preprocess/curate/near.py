"""Search among millions of hashes of 256 bits for those that differ in few.

A hash is cut into 16 bands of 16 bits, drawn once, for bits of neighbouring places say much the same. Hashes that
differ in at most 15 bits have a band in common, those of at most 31 a band that differs in one bit, so each is compared
only with what shares such a band (Norouzi, Punjani and Fleet, Fast Exact Search in Hamming Space with Multi-Index
Hashing, 2014). Few hashes are searched by two differing bits of a band too, which is exact to 47 bits. Of many, 99 % of
the pairs that differ in 40 bits are found, and 95 % of those in 48.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import numpy.typing as npt

from maskstream.shards.lazy import importing

with importing():
    import numba

UInt8s = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

_BANDS, _BAND = 16, 16
_FEW = 1 << 16
_AT_ONCE = 1 << 13
_CHANCE = 3
"""So many bits more are let leave a band as it is, for that each band has one is unlikely: 4e-5 of 18 in 16 bands."""
_PLACES = np.random.default_rng(0).permutation(_BANDS * _BAND)


def near(ours: UInt8s, others: UInt8s, distance: int, *, threads: int | None = None) -> Ints:
    """The pairs of hashes, uint8 (n, 32) and (m, 32), that differ in at most `distance` bits: int64 (P, 2), places in
    `ours` and in `others`. Hashes beside themselves (`others is ours`) give each pair once, the smaller place first.
    """
    if not len(ours) or not len(others):
        return np.empty((0, 2), np.int64)
    bands, itself = _bands(others), others is ours
    order = np.stack([np.argsort(bands[:, band], kind="stable").astype(np.int32) for band in range(_BANDS)])
    counts = np.stack([np.bincount(bands[:, band], minlength=1 << _BAND) for band in range(_BANDS)])
    starts = np.concatenate([np.zeros((_BANDS, 1), np.int32), counts.cumsum(1, dtype=np.int32)], axis=1)
    most = min(max(distance - _CHANCE, 0) // (_BANDS + 1), 2 if len(others) < _FEW else 1)
    bits = [1 << bit for bit in range(_BAND)]
    flips = np.array([sum(some) for count in range(most + 1) for some in combinations(bits, count)], np.uint16)

    def search(first: int) -> Ints:
        some = _bands(ours[first : first + _AT_ONCE])
        return np.asarray(_search(some, bands, order, starts, flips, most, distance, first, itself))

    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        return np.concatenate(list(pool.map(search, range(0, len(ours), _AT_ONCE))))


def _bands(hashes: UInt8s) -> npt.NDArray[np.uint16]:
    """The bands of hashes, uint16 (n, 16): their bits in another order."""
    made = np.empty((len(hashes), _BANDS), np.uint16)
    for first in range(0, len(hashes), _AT_ONCE):
        bits = np.unpackbits(hashes[first : first + _AT_ONCE], axis=1)[:, _PLACES]
        made[first : first + len(bits)] = np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint16)
    return made


@numba.njit(nogil=True, cache=True)
def _search(ours, others, order, starts, flips, most, distance, first, itself):  # type: ignore[no-untyped-def]
    """The pairs, int64 (P, 2): each in the first band that brings it."""
    found = np.empty((1024, 2), np.int64)
    count = 0
    our_words, words = ours.view(np.uint64), others.view(np.uint64)
    for query in range(len(ours)):
        a, b, c, d = our_words[query]
        least = first + query if itself else -1
        for band in range(ours.shape[1]):
            own = ours[query, band]
            for flip in flips:
                bucket = own ^ flip
                for at in range(starts[band, bucket], starts[band, bucket + 1]):
                    other = order[band, at]
                    if other <= least:
                        continue
                    differing = _ones(a ^ words[other, 0]) + _ones(b ^ words[other, 1])
                    differing += _ones(c ^ words[other, 2]) + _ones(d ^ words[other, 3])
                    if differing > distance:
                        continue
                    before = 0
                    while before < band and _ones(np.uint64(ours[query, before] ^ others[other, before])) > most:
                        before += 1
                    if before < band:
                        continue
                    if count == len(found):
                        found = np.concatenate((found, np.empty_like(found)))
                    found[count, 0] = first + query
                    found[count, 1] = other
                    count += 1
    return found[:count]


@numba.njit(nogil=True, cache=True)
def _ones(word):  # type: ignore[no-untyped-def]
    """How many bits of a uint64 are set."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))
