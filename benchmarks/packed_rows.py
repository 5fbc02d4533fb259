"""Packed rows: what a plan costs at any position of ten million samples, how full rows are, and how even their cost.

    OMP_NUM_THREADS=1 python benchmarks/packed_rows.py [--split DATA ...] [--mix IMAGES VIDEOS SOUNDS] [--rounds 9]

The first two tables are of simulated pictures, whose sides are uniform from 6 to 32 patches, and log-uniform from 100
to 2000 pixels. --split adds splits of images, videos or sounds as they are, and what their samples cost to decode for
each pixel that rows are balanced by; --mix the rows that several splits share. "left out" is of epochs of samples that
have ended. Seconds are of processor time, medians with quartiles over the rounds; each round takes another epoch.
Memory is the most that Python and numpy had at once, beyond the manifest.
"""

import argparse
import time
import tracemalloc
from itertools import chain, count, islice
from statistics import median
from typing import Any

import numpy as np
from turns import quartiles

from maskstream.pipelines import PackedData, VideoClip, masks, mix, packed_loader
from maskstream.pipelines.augment import Native
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.order import GlobalBatch
from maskstream.pipelines.stream.row_mix import RowMix, RowMixOrder
from maskstream.pipelines.stream.row_order import Room, RowOrder, RowSamples, RowSizes, Sizer
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.pipelines.stream.samples import SplitSamples
from maskstream.pipelines.stream.stats import Stats

PATCH = 16
RANKS = 4
BALANCE = 8
"""Batches of a window, as by default."""
SETTINGS: dict[str, Any] = {
    "native": Native(tubelet=2, least=16, most=2048),
    "clip": VideoClip(seconds=(1, 4), fps=8),
    "mask": masks.Random(ratio=0.75),
    "row_tokens": 2048,
}
"""Of the splits."""


class Drawn:
    """Native crops of pictures of simulated sizes, without keys: a number of the epoch's generator for each index."""

    def __init__(self, width: np.ndarray, height: np.ndarray, most: int) -> None:
        self.width, self.height = width, height
        self.native = Native(patch=PATCH, least=16, most=most).resolved(shuffle=True)

    @property
    def points_of_change(self) -> tuple[float, ...] | None:
        """None: sizes stay."""
        return None

    def at(self, progress: float) -> "Drawn":
        """The same."""
        return self

    def sizes(self, samples: GlobalBatch) -> RowSizes:
        """What some samples take of a row; a quarter of their tokens is visible."""
        mixed = samples.indexes * 0x9E3779B1 + samples.epochs * 0x85EBCA77
        numbers = np.stack([mixed % 65521 / 65521, mixed % 65519 / 65519], axis=1)
        width, height = (side[samples.indexes].astype(np.int64) for side in (self.width, self.height))
        crops = self.native.crops(width, height, numbers)
        shape = np.stack([np.ones_like(crops.rows), crops.rows, crops.columns], axis=1)
        visible = np.maximum(shape.prod(axis=1) // 4, 1)
        return RowSizes(shape=shape, visible=visible, target=None, pixels=width * height)


def shapes(n: int, *, photos: bool) -> tuple[np.ndarray, np.ndarray]:
    """Width and height of n pictures in pixels, int16 (n,)."""
    rng = np.random.default_rng(0)
    if photos:
        first, last = np.log([100, 2000])
        width, height = (np.exp(rng.uniform(first, last, n)) for _ in range(2))
    else:
        width, height = (PATCH * rng.integers(6, 33, n) for _ in range(2))
    return width.astype(np.int16), height.astype(np.int16)


def samples_of(sizer: Sizer, n: int, shards: int, room: Room, balance: int = BALANCE) -> RowSamples:
    """The samples of n pictures in so many shards."""
    split = SplitSamples(shard_sizes=(n // shards,) * shards, seed=0)
    return RowSamples(split=split, sizer=sizer, room=room, balance=balance)


def shown(values: list[float]) -> str:
    """The median, and the quartiles behind it."""
    low, middle, high = quartiles(values)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def measure_positions(rounds: int, n: int = 10_000_000) -> None:
    """Prints what it takes to open a plan and to find a batch in the middle of an epoch."""
    sizer = Drawn(*shapes(n, photos=False), most=1024)
    seconds, memory = [], 0
    for epoch in range(rounds):
        begin = time.process_time()
        order = RowOrder(samples=samples_of(sizer, n, 1000, Room(tokens=8192)), global_batch=32)
        next(order.batches(epoch, order.n_batches // 2))
        seconds.append(time.process_time() - begin)
    tracemalloc.start()
    order = RowOrder(samples=samples_of(sizer, n, 1000, Room(tokens=8192)), global_batch=32)
    next(order.batches(0, order.n_batches // 2))
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{n} samples, any position: {shown(seconds)} s CPU, {memory / 1e6:.0f} MB")


def measure_mixture(rounds: int, n: int = 10_000_000) -> None:
    """Prints the same of three splits of n pictures in all, whose weights change over a run of 200,000 batches."""
    sizer = Drawn(*shapes(n, photos=False), most=1024)
    ends = ((0.6, 0.2), (0.2, 0.6), (0.2, 0.2))
    parts = tuple(SplitSamples(shard_sizes=(n // 3000,) * 1000, seed=i) for i in range(len(ends)))
    weights = tuple(masks.Linear(start=start, end=end) for start, end in ends)
    given: Any = {"parts": parts, "weights": weights, "sizers": (sizer,) * len(ends), "room": Room(tokens=8192)}

    def found(number: int) -> None:
        order = RowMix(**given, unit="tokens", balance=BALANCE).order(32, 200_000)
        next(order.batches(*divmod(number, order.n_batches)))

    seconds = []
    for number in np.random.default_rng(0).integers(0, 200_000, rounds).tolist():
        begin = time.process_time()
        found(number)
        seconds.append(time.process_time() - begin)
    tracemalloc.start()
    found(123_456)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{n} samples in a mixture by schedules, any position: {shown(seconds)} s CPU, {memory / 1e6:.0f} MB")


def describe_mixture(splits: list[str], row_tokens: int) -> None:
    """Prints how full the rows are that several splits share, by what they are weighted, and what ranks decode."""
    print(f"| {row_tokens} visible tokens a row | rows | of tokens | empty | largest over mean of 4 ranks | worst |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    falls, rises = masks.Linear(start=0.6, end=0.2), masks.Linear(start=0.2, end=0.6)
    for name, weights in (("1 : 1 : 1", (1, 1, 1)), ("by schedules", (falls, rises, 1))):
        parts = list(zip(splits, weights, strict=False))
        native, mask = Native(patch=PATCH, tubelet=2, least=16, most=1024), masks.Random(ratio=0.75)
        loader = packed_loader(
            parts, rows=16, row_tokens=row_tokens, native=native, mask=mask, unit="tokens", steps=60, device="cpu"
        )
        order = loader.order
        if not isinstance(order, RowMixOrder):
            raise TypeError(f"{order} is no order of a mixture")
        batches = list(islice(chain.from_iterable(map(order.batches, count())), 60))
        rows = [row for batch in batches for row in batch.packed or ()]
        visible = np.concatenate([row.visible for row in rows])
        of = np.searchsorted(order.samples.starts, np.concatenate([row.indexes for row in rows]), side="right") - 1
        shares = np.bincount(of, weights=visible, minlength=len(splits)) / visible.sum()
        balance = uneven(batches)
        empty = 1 - visible.sum() / (len(rows) * row_tokens)
        given = ", ".join(f"{share:.0%}" for share in shares)
        print(f"| {name} | {len(rows)} | {given} | {empty:.2%} | {np.median(balance):.3f} | {balance.max():.3f} |")


def uneven(batches: list[GlobalBatch]) -> np.ndarray:
    """What the rank with the most decodes of each batch, over the mean of the ranks."""
    pixels = np.array([[row.pixels for row in batch.packed or ()] for batch in batches])
    cost = pixels.reshape(len(batches), RANKS, -1).sum(axis=2)
    ratio: np.ndarray = cost.max(axis=1) / cost.mean(axis=1)
    return ratio


def describe(name: str, tokens: int, sizer: Sizer, batches: list[GlobalBatch]) -> None:
    """Prints how full the rows of some batches are, by how much counts were scaled, and what ranks decode."""
    rows = [row for batch in batches for row in batch.packed or ()]
    seen = np.concatenate([row.visible for row in rows])
    parts = [sizer.sizes(GlobalBatch(indexes=row.indexes, epochs=row.epochs)) for row in rows]
    change = np.abs(seen / np.concatenate([part.visible for part in parts]) - 1)
    balance = uneven(batches)
    print(
        f"| {name} | {len(rows)} | {1 - seen.sum() / (len(rows) * tokens):.2%} | {np.median(change):.1%} | "
        f"{np.quantile(change, 0.95):.1%} | {np.median(balance):.3f} | {balance.max():.3f} |",
        end="",
    )


def describe_order(name: str, order: RowOrder, epochs: int = 5) -> None:
    """Prints that of some epochs, and which share of the samples was left out of those of the samples that ended."""
    samples = order.samples
    batches = [batch for epoch in range(epochs) for batch in order.batches(epoch)]
    describe(name, samples.room.tokens, samples.sizer, batches)
    drawn = np.concatenate([row.epochs for batch in batches for row in batch.packed or ()])
    ended = int(drawn.max())
    print(f" {1 - np.count_nonzero(drawn < ended) / (ended * samples.n_samples):.2%} |" if ended else " |")


def describe_splits(splits: list[str]) -> None:
    """Prints that of real splits, whose epochs follow each other, and what their samples cost to decode."""
    for split in splits:
        for scaling in (0.0, 0.1):
            opened = Split.open(split, PackedData.modalities, device="cpu")
            mixed = mix([(PackedData(**SETTINGS, scaling=scaling).source(opened), 1)], batches=40)
            if isinstance(mixed.samples, RowMix):
                sizer, batches = mixed.samples.parts[0].sizer.at(0.0), mixed.samples.order(4 * RANKS).batches(0)
                describe(f"{split}, scaling={scaling:g}", mixed.samples.room.tokens, sizer, [*batches])
                print(" |")
    for split in splits:
        measure_decoding(split)


def measure_decoding(split: str, n: int = 60) -> None:
    """Prints the processor time of samples, over the pixels that rows are balanced by."""
    opened = Split.open(split, PackedData.modalities, device="cpu", threads=1)
    source = PackedData(**SETTINGS).source(opened)
    numbers = np.arange(min(n, len(opened.manifest)))
    pixels = source.samples.sizer.sizes(GlobalBatch(indexes=numbers, epochs=np.zeros_like(numbers))).pixels
    taken = []
    for number in numbers.tolist():
        each = []
        for _ in range(3):
            request = source.sampler.requests([Wanted(index=number, epoch=0)])
            draft = source.sampler.allocate(request)
            begin = time.thread_time()
            source.sampler.fill(request, draft, [0], Stats())
            each.append(time.thread_time() - begin)
        taken.append(min(each))
    print(f"{split}: {1e3 * median(taken):.2f} ms CPU a sample, {1e9 * sum(taken) / pixels.sum():.1f} ns a pixel")


def main() -> None:
    """Measures as the options say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", nargs="+", default=[], help="splits of images, videos or sounds")
    parser.add_argument("--mix", nargs="+", help="splits that share rows")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print("| samples | rows | empty | scaled by, median | 95 % | largest over mean of 4 ranks | worst | left out |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for photos, most in ((False, 1024), (True, 4096)):
        for scaling in (0.0, 0.1):
            sizer, room = Drawn(*shapes(20_000, photos=photos), most=most), Room(tokens=8192, scaling=scaling)
            name = f"{'100 to 2000 pixels' if photos else '6 to 32 patches'}, scaling={scaling:g}"
            describe_order(name, RowOrder(samples=samples_of(sizer, 20_000, 20, room), global_batch=4 * RANKS))
    describe_splits(options.split)
    if options.mix:
        for row_tokens in (1024, 2048, 8192):
            describe_mixture(options.mix, row_tokens)
    measure_positions(options.rounds)
    measure_mixture(options.rounds)


if __name__ == "__main__":
    main()
