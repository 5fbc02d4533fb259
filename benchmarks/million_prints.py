"""A million pictures against each other, as `maskstream curate --copies` compares them: time, memory and what is found.

    python benchmarks/million_prints.py SPLIT [SPLIT ...] [--count 1000000] [--planted 10000] [--seed 0]

The splits are of pictures. Each of the million is one of these pictures shown through another, half to two thirds of
it. Hashes are thresholds of linear transforms, but for luma far from the mean, so those of the mixture are made from
the two's coefficients, and have the uneven bits that pictures have. The skew that is printed is how many hashes share
a band of 16 bits, or one that differs in a bit, over how many would if bits were drawn. `planted` more are copies of
which up to 48 bits of the waves differ. Of 300 hashes all that are near are found by a comparison with all.
"""

import argparse
import resource
import time

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.preprocess.curate import prints
from maskstream.preprocess.curate.copies import DISTANCES, alike, find_copies
from maskstream.preprocess.curate.measures import SIGNALS, Measures, _frames_of, _luma
from maskstream.preprocess.curate.near import _bands
from maskstream.shards.format.manifest import Manifest

Floats = npt.NDArray[np.float32]
UInt8s = npt.NDArray[np.uint8]
WINDOWS, AT_ONCE = 3, 4096


def coefficients(luma: UInt8s) -> Floats:
    """What the hashes of a picture are thresholds of: of the whole, its three windows and its slopes, (5, 256)."""
    small = prints.small_luma(luma)
    windows = [prints.small_luma(one) for one in prints._windows(luma, of_clip=False) if one.size]
    cells = np.asarray(cv2.resize(small, (prints._CELLS, prints._CELLS), interpolation=cv2.INTER_AREA))
    slopes = [np.diff(cells, axis=axis).reshape(-1)[: prints._SLOPES] for axis in (1, 0)]
    mean, far = zip(*((float(one.mean()), prints._FAR * float(one.std())) for one in (small, *windows)), strict=True)
    clipped = [np.clip(one, m - f, m + f) for one, m, f in zip((small, *windows), mean, far, strict=True)]
    waves = [(prints._COSINES @ one @ prints._COSINES.T).reshape(-1) for one in clipped]
    return np.stack([*waves, np.concatenate(slopes)])


def hashes(values: Floats) -> UInt8s:
    """The hashes of coefficients (n, 5, 256): uint8 (n, 5, 32)."""
    limit = np.partition(values[:, :4], prints._MIDST, axis=2)[:, :, prints._MIDST]
    limit = np.concatenate([limit, np.full((len(values), 1), prints._STEEP, np.float32)], axis=1)
    made = np.packbits(values > limit[:, :, None], axis=2)
    share, against = prints._OF_PICTURES
    up = (values[:, 4] > prints._STEEP).reshape(-1, 2, prints._SLOPES).sum(2)
    flat = (np.abs(values[:, 4]) > prints._STEEP).mean(1) < share
    flat |= np.minimum(up, prints._SLOPES - up).sum(1) < against
    made[flat, 4] = made[flat, 0]
    return made


def mixed(values: Floats, count: int, rng: np.random.Generator) -> UInt8s:
    """The hashes of `count` pictures, each of one shown through another: uint8 (count, 5, 32)."""
    made = np.empty((count, 5, prints.PART_BYTES), np.uint8)
    for first in range(0, count, AT_ONCE):
        n = min(AT_ONCE, count - first)
        share = rng.uniform(0.5, 0.65, (n, 1, 1)).astype(np.float32)
        one, two = values[rng.integers(len(values), size=(2, n))]
        made[first : first + n] = hashes(share * one + (1 - share) * two)
    return made


def skew(some: UInt8s) -> float:
    """How many times as many pairs share a band, or one but for a bit, as of drawn bits. some: (n, 32)."""
    found, places = 0.0, np.arange(1 << 16)
    for band in _bands(some).T:
        counts = np.bincount(band, minlength=1 << 16).astype(float)
        found += counts @ (counts - 1) + sum(counts @ counts[places ^ (1 << bit)] for bit in range(16))
    return found / (16 * 17 * len(some) * (len(some) - 1) / (1 << 16))


def measures(made: UInt8s) -> Measures:
    """Measures of pictures with these hashes, (n, 5, 32)."""
    n = len(made)
    windows = np.zeros((n, len(prints.WINDOWS), prints.PART_BYTES), np.uint8)
    windows[:, :WINDOWS] = made[:, 1:4]
    whole = np.ascontiguousarray(made[:, [0, 4]].reshape(n, -1))
    return Measures(
        manifest=None,  # type: ignore[arg-type]  # nothing is read
        index=np.arange(n),
        components=["png"] * n,
        signals={name: np.zeros(n) for name in SIGNALS},
        start=np.arange(n + 1),
        times=np.zeros(n),
        whole=whole,
        windows=windows,
        mirrored=whole.copy(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("splits", nargs="+")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--planted", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    begun, of = time.process_time(), []
    for location in asked.splits:
        manifest = Manifest.load(location)
        name = next(one for one in manifest.components if one != "json")
        lumas = (_luma(_frames_of(manifest, number, name)[0]) for number in range(len(manifest)))
        of.append(np.stack([coefficients(luma) for luma in lumas if luma.std() >= 4]))
        real = np.concatenate([hashes(of[-1][first : first + AT_ONCE]) for first in range(0, len(of[-1]), AT_ONCE)])
        print(f"{location}: {len(real)} pictures, skew of waves {skew(real[:, 0]):.1f}, slopes {skew(real[:, 4]):.1f}")
    made = mixed(np.concatenate(of), asked.count - asked.planted, rng)
    del of
    whose = rng.choice(len(made), asked.planted, replace=False)
    places = np.argsort(rng.random((asked.planted, 256)), axis=1)
    bits = rng.integers(0, DISTANCES[0] + 1, asked.planted)
    copies = made[whose]
    copies[:, 0] ^= np.packbits(np.argsort(places, axis=1) < bits[:, None], axis=1)
    copies[:, 1:] = rng.integers(0, 256, copies[:, 1:].shape, dtype=np.uint8)
    own = measures(np.concatenate([made, copies]))
    print(f"{len(own)} mixtures: skew of waves {skew(made[:, 0]):.1f}, slopes {skew(made[:, 4]):.1f}")
    del made, copies
    print(f"made in {time.process_time() - begun:.0f} CPU s; {peak()} MB with the hashes")
    begun, began = time.process_time(), time.monotonic()
    groups = find_copies(own, np.arange(len(own)), False)
    seconds = f"{time.process_time() - begun:.0f} CPU s, {time.monotonic() - began:.0f} s"
    print(f"{sum(map(len, groups.values()))} copies of {len(groups)} that stay in {seconds}; {peak()} MB", flush=True)
    del groups
    begun, began = time.process_time(), time.monotonic()
    pairs = alike(own, own)
    seconds = f"{time.process_time() - begun:.0f} CPU s, {time.monotonic() - began:.0f} s"
    print(f"all {len(pairs)} pairs in {seconds}; {peak()} MB", flush=True)
    found, first = pairs @ [len(own), 1], len(own) - asked.planted
    for low, high in ((0, 31), (32, 40), (41, 47), (48, 48)):
        those = np.flatnonzero((low <= bits) & (bits <= high))
        met = np.isin(whose[those] * len(own) + first + those, found).sum()
        print(f"planted, {low} to {high} bits: {met} of {len(those)} found")
    waves, there, missed = own.whole[:, :32].copy().view(np.uint64), 0, 0
    for place in rng.choice(len(own), 300, replace=False).tolist():
        near = np.flatnonzero(np.bitwise_count(waves ^ waves[place]).sum(1) <= DISTANCES[0])
        near = near[near != place]
        there += len(near)
        missed += (~np.isin(np.minimum(near, place) * len(own) + np.maximum(near, place), found)).sum()
    print(f"compared with all: of {there} pairs of waves of 300 pictures {missed} were missed")


def peak() -> int:
    """The most memory that this process had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
