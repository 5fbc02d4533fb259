"""Find near-duplicates within a split, or between two splits.

The search over perceptual hashes of frames is exhaustive within a Hamming distance. Two samples are copies if half of
the frames of the shorter one match frames of the other in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from maskstream.shards.arrays import Bools, Float32s, Int64s, UInt8s

from .measures import Measures
from .prints import PART_BYTES

DISTANCES = (48, 18)
"""Frames match if their waves, or their slopes, differ in at most this many of 256 bits."""
CLIP_WINDOW_DISTANCE, WINDOW_DISTANCE = 40, 28
"""The same limit between the waves of a frame and the waves of a window of another frame: used between two clips, where
half of the frames do not match by chance, and if one of the two samples is an image.
"""
SHARE = 0.5
"""Samples are copies if at least this fraction of the frames of the shorter one matches the other in the same order."""
SPEEDS = (1.0, 1.1, 1 / 1.1, 1.25, 1 / 1.25, 1.5, 1 / 1.5, 2.0, 0.5)
"""Playback speeds at which a copy of a clip is still recognised."""
_CELL_S = 0.4
_AT_ONCE = 1024
"""Samples whose features are compared with each other in one block."""


def alike(
    own: Measures,
    theirs: Measures,
    *,
    mirrored: bool = False,
    ours: Int64s | None = None,
    among: Int64s | None = None,
) -> Int64s:
    """Return the pairs of samples that are copies of each other.

    Args:
        own: Measures of one split.
        theirs: Measures of another split; pass `own` again to compare a split with itself.
        mirrored: Also find mirrored copies, and audio a semitone higher or lower.
        ours: Positions in `own` to compare; all by default. Within one split they are a subset of `among`.
        among: Positions in `theirs` to compare; all by default.

    Returns:
        Sorted pairs, int64 (P, 2): positions in `own` and in `theirs`. Within one split each pair comes once, the
            smaller position first.
    """
    itself, all_of_them = own is theirs, ours is None and among is None
    mine, others = _list_frames(own, ours), _list_frames(theirs, among)
    frames = [_match_frames(own.whole, mine, theirs.whole, others)]
    frames.append(_match_cropped_frames(own, mine, theirs, others))
    frames += [_match_frames(own.whole, mine, theirs.mirrored, others)] if mirrored else []
    if not (itself and all_of_them):
        back = [_match_cropped_frames(theirs, others, own, mine)]
        back += [_match_frames(theirs.whole, others, own.mirrored, mine)] if mirrored else []
        frames += back if itself else [one[:, ::-1] for one in back]
    pairs = np.concatenate([_match_samples(own, theirs, one) for one in frames])
    if itself:
        pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    return _drop_repeated(pairs)


@dataclass(frozen=True, slots=True)
class Match:
    """Where two samples match: first and last matching second in each, and the median number of the 256 hash bits in
    which their frames differ.
    """

    ours_s: tuple[float, float]
    theirs_s: tuple[float, float]
    bits: int


def match_frames(own: Measures, place: int, theirs: Measures, there: int) -> Match | None:
    """Return where a sample matches another one, according to the waves of its frames; None if one of them has no hash.
    The frames of either may be mirrored, or cropped to a window.
    """
    bits = np.minimum(_waves_apart(own, place, theirs, there), _waves_apart(theirs, there, own, place).T)
    if not bits.size:
        return None
    near = np.argwhere(bits <= max(DISTANCES[0], int(bits.min())))
    ours, others = (
        (float(one.times[one.start[at] + frames.min()]), float(one.times[one.start[at] + frames.max()]))
        for one, at, frames in ((own, place, near[:, 0]), (theirs, there, near[:, 1]))
    )
    return Match(ours, others, int(np.median(bits[np.unique(near[:, 0])].min(axis=1))))


def _waves_apart(own: Measures, place: int, theirs: Measures, there: int) -> Int64s:
    """Return the number of bits in which the waves of frames differ from other frames, int64 (F, G): the smallest
    distance to the frame itself, its mirror image and its windows.
    """
    some, others = slice(*own.start[place : place + 2]), slice(*theirs.start[there : there + 2])
    whole, mirrored = (hashes[others, None, :PART_BYTES] for hashes in (theirs.whole, theirs.mirrored))
    forms = [one for one in (whole, mirrored, theirs.windows[others]) if len(one)] or [whole]  # texts have one form
    differing = own.whole[some, None, None, :PART_BYTES] ^ np.concatenate(forms, axis=1)[None]
    return np.asarray(np.bitwise_count(differing).sum(axis=-1, dtype=np.int64).min(axis=-1), np.int64)


def _drop_repeated(pairs: Int64s) -> Int64s:
    """Return the distinct pairs, int64 (P, 2), sorted."""
    length = int(pairs.max(initial=0)) + 1  # one number per row, because numpy takes 30 times as long for rows
    return np.stack(np.divmod(np.unique(pairs @ [length, 1]), length), 1)


def _match_samples(own: Measures, theirs: Measures, frames: Int64s) -> Int64s:
    """Return the pairs of samples with enough frames that match in the same order, int64 (P, 2), given matching pairs
    of frames, int64 (F, 2).

    The frames of a copy lie on a line: their times are a speed times the times of the other, plus a shift. Each pair of
    frames votes for its shift at each of SPEEDS, in cells that overlap by half. A sample of one frame needs one vote.
    """
    a, b = own.owner[frames[:, 0]], theirs.owner[frames[:, 1]]
    if own is theirs:
        frames, a, b = (one[a != b] for one in (frames, a, b))
    n_a, n_b, all_codes = np.diff(own.start)[a], np.diff(theirs.start)[b], a * len(theirs) + b
    of_one = np.minimum(n_a, n_b) == 1
    at_once, frames, n_a, n_b = np.unique(all_codes[of_one]), frames[~of_one], n_a[~of_one], n_b[~of_one]
    codes, which = np.unique(all_codes[~of_one], return_inverse=True)
    shorter = np.where(n_a <= n_b, frames[:, 0], frames[:, 1])  # the frame of the sample that has fewer
    most = np.zeros(len(codes), np.int64)
    for speed in SPEEDS:
        shift = (theirs.times[frames[:, 1]] - speed * own.times[frames[:, 0]]) / _CELL_S
        for of in (np.floor(shift), np.floor(shift + 0.5)):
            cell = of.astype(np.int64) - int(of.min(initial=0))
            across, length = int(cell.max(initial=0)) + 1, int(shorter.max(initial=0)) + 1
            votes = np.unique((which * across + cell) * length + shorter) // length
            cells, counts = np.unique(votes, return_counts=True)
            np.maximum.at(most, cells // across, counts)
    a, b = np.divmod(codes, max(len(theirs), 1))
    fewer = np.minimum(np.diff(own.start)[a], np.diff(theirs.start)[b])
    met = np.concatenate([at_once, codes[most >= SHARE * fewer]])
    return np.asarray(np.stack(np.divmod(met, max(len(theirs), 1)), 1), np.int64)


def _list_frames(of: Measures, samples: Int64s | None) -> Int64s:
    """Return the frames of samples, int64 (F,); None stands for all samples."""
    chosen = np.ones(len(of), bool)
    if samples is not None:
        chosen[:] = False
        chosen[samples] = True
    return np.flatnonzero(np.repeat(chosen, np.diff(of.start)))


def _match_cropped_frames(copies: Measures, some: Int64s, others: Measures, among: Int64s) -> Int64s:
    """Return the pairs of frames from `some` and `among`, int64 (P, 2), where the first matches a window of the
    second.
    """
    from .near import near

    in_clip, of_clip = (np.repeat(counts > 1, counts) for counts in (np.diff(one.start) for one in (copies, others)))
    clips = in_clip[some].any() and of_clip[among].any()
    waves, found = copies.whole[some, :PART_BYTES], [np.empty((0, 2), np.int64)]
    for at in range(others.windows.shape[1]):
        has = among[others.windows[among, at].any(1)] if len(others.windows) else among[:0]
        windows = others.windows[has, at]
        pairs = near(waves, windows, CLIP_WINDOW_DISTANCE if clips else WINDOW_DISTANCE)
        frames = np.stack([some[pairs[:, 0]], has[pairs[:, 1]]], 1)
        if clips:
            differing = np.bitwise_count(waves[pairs[:, 0]] ^ windows[pairs[:, 1]]).sum(1)
            frames = frames[(differing <= WINDOW_DISTANCE) | (in_clip[frames[:, 0]] & of_clip[frames[:, 1]])]
        found.append(frames)
    return _drop_repeated(np.concatenate(found))


def _match_frames(ours: UInt8s, some: Int64s, others: UInt8s, among: Int64s) -> Int64s:
    """Return the pairs of frames from `some` and `among` that match, int64 (P, 2). Within one array of hashes each pair
    comes once, the smaller number first.
    """
    from .near import near

    found, itself = [], others is ours
    for at, distance in enumerate(DISTANCES):
        part = slice(at * PART_BYTES, (at + 1) * PART_BYTES)
        mine = ours[some, part]
        pairs = near(mine, mine if itself and len(some) == len(among) else others[among, part], distance)
        one, two = some[pairs[:, 0]], among[pairs[:, 1]]
        if itself:
            one, two = (way(one, two)[one != two] for way in (np.minimum, np.maximum))
        found.append(one * len(others) + two)
    codes = np.unique(np.concatenate(found))
    return np.stack(np.divmod(codes, max(len(others), 1)), 1)


def _parts(count: int) -> Iterator[slice]:
    """Yield slices over `count` positions, each 16 times as long as the previous one. If many samples are alike, the
    first few already decide, so not every pair is compared.
    """
    first, size = 0, 1
    while first < count:
        yield slice(first, first + size)
        first, size = first + size, size * 16


def _grouped(pairs: Int64s, order: Int64s) -> dict[int, list[int]]:
    """Group samples greedily: each kept sample, with the samples that are removed as copies of it.

    pairs: matching samples, int64 (P, 2). order: see `find_copies`.
    """
    rank = np.zeros(int(order.max(initial=-1)) + 1, np.int64)
    rank[order] = np.arange(len(order))
    better, worse = np.divmod(np.unique(np.sort(rank[pairs], axis=1) @ [len(order), 1]), max(len(order), 1))
    ones, starts = np.unique(better, return_index=True)
    groups: dict[int, list[int]] = {}
    taken = np.zeros(len(order), bool)
    for one, (begin, end) in zip(ones.tolist(), pairwise([*starts.tolist(), len(worse)]), strict=True):
        others = worse[begin:end][~taken[worse[begin:end]]]
        if not taken[one] and len(others):
            groups[int(order[one])] = sorted(order[others].tolist())
            taken[others] = True
    return groups


def find_leaks(own: Measures, theirs: Measures, left: Sequence[int], mirrored: bool) -> Iterator[tuple[int, int]]:
    """Yield the samples of `left` that are copies of samples of `theirs`, each with the first such sample.

    Args:
        own: Measures of the split that is curated.
        theirs: Measures of the evaluation split.
        left: Positions in `own` to check.
        mirrored: Also find mirrored copies, and audio a semitone higher or lower.

    Yields:
        Pairs of a position in `own` and a position in `theirs`.
    """
    some = np.array(left, np.int64)
    for part in _parts(len(theirs)):
        pairs = alike(own, theirs, mirrored=mirrored, ours=some, among=np.arange(len(theirs))[part])
        places, at = np.unique(pairs[:, 0], return_index=True)
        yield from zip(places.tolist(), pairs[at, 1].tolist(), strict=True)
        some = np.setdiff1d(some, places)


def find_copies(
    own: Measures,
    order: Int64s,
    mirrored: bool,
    features: Float32s | None = None,
    cosine: float = 1.0,
) -> dict[int, list[int]]:
    """Group near-duplicates, and return for each kept sample the samples that are removed as its copies.

    Samples are visited from best to worst, and a sample is removed if it matches a kept one. So a sample that only
    matches a removed copy is kept.

    Args:
        own: Measures of the split.
        order: Positions of the samples, best first, int64 (n,); samples that are not listed are ignored.
        mirrored: Also find mirrored copies, and audio a semitone higher or lower.
        features: One vector of length 1 for each sample, or zeros, float32 (N, D); None compares only hashes.
        cosine: Samples also match if their features have at least this cosine.

    Returns:
        Positions of the removed copies by the position of the kept sample.
    """
    groups: dict[int, list[int]] = {}
    left = np.zeros(len(own), bool)
    left[order] = True
    for part in _parts(len(order)):
        some = order[part][left[order[part]]]
        pairs = alike(own, own, mirrored=mirrored, ours=some, among=np.flatnonzero(left))
        for found in (
            [_grouped(pairs, order)] if features is None else _blocks(some, left, order, pairs, features, cosine)
        ):
            groups |= found
            left[[place for others in found.values() for place in others]] = False
        left[some] = False
    return groups


def _blocks(
    some: Int64s, left: Bools, order: Int64s, pairs: Int64s, features: Float32s, cosine: float
) -> Iterator[dict[int, list[int]]]:
    """Yield the groups of one step of `find_copies`, which updates `left` before the next block of `some` is compared.

    Memory stays bounded even if all vectors are alike: a block yields the pairs within it, and for each other sample
    only the first match among the block's kept samples.
    """
    rank = np.zeros(len(left), np.int64)
    rank[order] = np.arange(len(order))
    pairs = np.take_along_axis(pairs, np.argsort(rank[pairs], axis=1), axis=1)  # the better sample first
    pairs = pairs[np.argsort(rank[pairs[:, 0]])]
    ranks = rank[pairs[:, 0]]
    for first in range(0, len(some), _AT_ONCE):
        block = some[first : first + _AT_ONCE]
        hashed = pairs[slice(*np.searchsorted(ranks, (rank[block[0]], rank[block[-1]] + 1)))]
        block = block[left[block]]
        within = np.argwhere(np.triu(features[block] @ features[block].T >= cosine, 1))
        inside = np.concatenate([hashed[left[hashed].all(1)], block[within]])
        goes = np.array([place for others in _grouped(inside, order).values() for place in others], np.int64)
        stays = np.setdiff1d(block, goes)
        stays, claimed = stays[np.argsort(rank[stays])], [inside]
        left[block] = False
        others = np.flatnonzero(left)
        for begin in range(0, len(others), _AT_ONCE):
            rest = others[begin : begin + _AT_ONCE]
            near = features[rest] @ features[stays].T >= cosine
            met = near.any(1)
            claimed.append(np.stack([stays[near[met].argmax(1)], rest[met]], 1))
        yield _grouped(np.concatenate(claimed), order)
