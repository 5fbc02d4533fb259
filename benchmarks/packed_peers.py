"""Packed rows beside loaders that pad: timm's NaFlex loader on the same pictures, Lhotse's buckets on the same sounds.

    python -m pip install --target runs/packed-peers --no-deps --group packed
    OMP_NUM_THREADS=1 PYTHONPATH=runs/packed-peers python benchmarks/packed_peers.py [--rounds 7]

The pictures are drawn, JPEG, their sides log-uniform from 100 to 1,000 pixels; the sounds are drawn, FLAC, log-uniform
from 1 to 10 s. All make floats: of pictures, random crops with flips in patches of 16 x 16, normalised; of sounds, 128
bands of Kaldi's every 10 ms, of which 16 x 16 are a token. NaFlex shrinks or enlarges each crop to what it draws for a
batch, as it does by default; here crops stay as they are, up to 1,024 tokens. Tokens that are real are counted, by
processor time of one thread; one epoch of each takes a round, in turns.

The order is measured as in shuffle.py, of samples as batches give them; "spread" is how sizes differ in a batch, over
how they do in all: 1 for batches at random. Buckets need a set that is larger than their buffer, so a second table is
of 40,000 samples that are not read.
"""

import argparse
import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from array_peers import ONE, made
from packed_rows import Drawn, samples_of, shapes
from shuffle_quality import expected_quality, shuffle_quality
from turns import quartiles

from maskstream.pipelines import masks, packed_loader
from maskstream.pipelines.augment import Native
from maskstream.pipelines.stream.row_order import Room, RowOrder
from maskstream.preprocess.encode.audio.encoder import encoded_sound
from maskstream.preprocess.encode.audio.sound import Sound

PICTURES, SOUNDS, RATE, SHARD = 512, 512, 16000, 16
ROW, SECONDS, BINS = 8192, 80.0, 128
"""Tokens of a batch of pictures; seconds of one of sounds."""


class Given(NamedTuple):
    """A batch: the tokens that are real and those that are computed, and the numbers of its samples."""

    real: int
    all: int
    samples: list[int]


Epoch = Callable[[int], Iterator[Given]]


def write_pictures(folder: Path) -> None:
    """Textures with edges, of many sizes."""
    for i in range(PICTURES):
        rng = np.random.default_rng(i)
        width, height = np.exp(rng.uniform(*np.log([100, 1000]), 2)).astype(int).tolist()
        coarse = rng.integers(256, size=(max(height // 40, 2), max(width // 40, 2), 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        picture += 24 * cv2.GaussianBlur(rng.normal(size=(height, width, 3)).astype(np.float32), (0, 0), 1.2)
        cv2.imwrite(str(folder / f"{i:04d}.jpg"), picture.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])


def write_sounds(folder: Path) -> None:
    """Harmonics and noise, of many lengths."""
    for i in range(SOUNDS):
        rng = np.random.default_rng(i)
        t = np.arange(int(np.exp(rng.uniform(*np.log([1, 10]))) * RATE))[:, None] / RATE
        wave = sum(np.sin(2 * np.pi * rng.uniform(80, 2000) * t) / (k + 1) for k in range(8))
        samples = np.rint(4000 * wave + rng.normal(0, 200, t.shape)).astype(np.int32)
        sound = Sound(samples=samples, bits=16, sample_rate=RATE, codec="pcm_s16le", container="wav")
        (folder / f"{i:04d}.flac").write_bytes(encoded_sound(sound, level=5).members["flac"].data)


def packed(split: Path, numbers: dict[str, int], row_tokens: int, **settings: Any) -> Epoch:
    """Rows of this package, two in a batch; their tokens are those of all samples, of which masks leave a part."""
    loader = packed_loader(split, row_tokens=row_tokens // 2, rows=2, **ONE, **settings)

    def epoch(_: int) -> Iterator[Given]:
        for batch in loader:
            if len(batch.tokens):
                batch.pixel_values()
            seen = len(batch.place) if batch.mask is None else len(batch.mask.visible)
            share = len(batch.place) / max(seen, 1)
            yield Given(len(batch.place), round(share * row_tokens), [numbers[key] for key in batch.key])

    return epoch


def naflex(files: list[Path]) -> Epoch:
    """timm's loader for training, with crops and flips alone."""
    image, module = (importlib.import_module(name) for name in ("PIL.Image", "timm.data.naflex_loader"))
    seen: list[int] = []

    class Files(torch.utils.data.Dataset[Any]):
        transform = None

        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, number: int) -> Any:
            seen.append(number)
            return image.open(files[number]).convert("RGB"), 0

    loader = module.create_naflex_loader(
        Files(),
        patch_size=16,
        max_seq_len=1024,
        batch_size=ROW // 1024,
        is_training=True,
        color_jitter=0.0,
        scale=(0.2, 1.0),
        num_workers=0,
        use_prefetcher=False,
        pin_memory=False,
        persistent_workers=False,
        device="cpu",
    )

    def epoch(number: int) -> Iterator[Given]:
        loader.dataset.set_epoch(number)
        for batch, _ in loader:
            valid = batch["patch_valid"]
            yield Given(int(valid.sum()), valid.numel(), [seen.pop(0) for _ in range(len(valid))])

    return epoch


def buckets(lengths: list[float], files: list[Path] | None, **settings: Any) -> Epoch:
    """Lhotse's dynamic buckets; without files only the order is made."""
    lhotse, dataset = importlib.import_module("lhotse"), importlib.import_module("lhotse.dataset")
    audio, inputs = (importlib.import_module(f"lhotse.{name}") for name in ("audio", "dataset.input_strategies"))

    def cut(i: int, seconds: float) -> Any:
        source = audio.AudioSource(type="file", channels=[0], source="" if files is None else str(files[i]))
        n_samples = round(seconds * RATE)
        about = lhotse.Recording(
            id=str(i), sources=[source], sampling_rate=RATE, num_samples=n_samples, duration=n_samples / RATE
        )
        return lhotse.MonoCut(id=str(i), start=0, duration=about.duration, channel=0, recording=about)

    cuts = lhotse.CutSet.from_cuts(cut(i, seconds) for i, seconds in enumerate(lengths))
    features = inputs.OnTheFlyFeatures(lhotse.Fbank(lhotse.FbankConfig(sampling_rate=RATE, num_filters=BINS)))

    def epoch(number: int) -> Iterator[Given]:
        sampler = dataset.DynamicBucketingSampler(cuts, max_duration=SECONDS, shuffle=True, seed=0, **settings)
        sampler.set_epoch(number)
        for batch in sampler:
            of = [int(one.id) for one in batch]
            if files is None:
                yield Given(0, 0, of)
                continue
            values, frames = features(batch)[:2]
            yield Given(int((frames // 16).sum()) * BINS // 16, len(of) * (values.shape[1] // 16) * BINS // 16, of)

    return epoch


def rows_of(order: RowOrder) -> Epoch:
    """The order of planned rows alone."""

    def epoch(number: int) -> Iterator[Given]:
        for batch in order.batches(number):
            yield Given(0, 0, np.concatenate([row.indexes for row in batch.packed or ()]).tolist())

    return epoch


def order_cells(batches: list[list[int]], sizes: np.ndarray, per_shard: int) -> str:
    """How random the order of an epoch is."""
    order = np.concatenate([np.array(one) for one in batches])
    shard = np.arange(len(sizes)) // per_shard
    width = round(median(map(len, batches)))
    quality = shuffle_quality(order, shard, batch_size=width)
    logs = np.log(sizes)
    spread = float(np.mean([logs[one].std() for one in batches if len(one) > 1])) / float(logs.std())
    expected = expected_quality(shard, batch_size=width).same_shard_neighbours
    return (
        f"{abs(quality.position_correlation):.3f} | {quality.same_shard_neighbours:.4f} ({expected:.4f} of a "
        f"permutation) | {spread:.2f} |"
    )


def compare(title: str, loaders: dict[str, Epoch], sizes: np.ndarray, rounds: int) -> None:
    """Prints what all loaders make of a set."""
    speeds: dict[str, list[float]] = {name: [] for name in loaders}
    real, computed = dict.fromkeys(loaders, 0), dict.fromkeys(loaders, 0)
    orders: dict[str, list[list[int]]] = {}
    for number in range(rounds + 1):  # the first epoch warms up
        for name, epoch in loaders.items():
            begin, tokens = time.process_time(), 0
            given = list(epoch(number))
            seconds = time.process_time() - begin
            tokens = sum(one.real for one in given)
            if number:
                speeds[name].append(tokens / seconds)
                real[name] += tokens
                computed[name] += sum(one.all for one in given)
            orders[name] = [one.samples for one in given]
    print(f"\n| {title} | 1,000 tokens a CPU second | padding | correlation | neighbours of one shard | spread |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, values in speeds.items():
        low, middle, high = quartiles(values)
        speed = f"{middle / 1e3:.0f} ({low / 1e3:.0f} to {high / 1e3:.0f})"
        print(f"| {name} | {speed} | {1 - real[name] / computed[name]:.1%} | {order_cells(orders[name], sizes, SHARD)}")


def main() -> None:
    """Measures as the options say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/bench"), help="where the files are kept")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)

    split, samples = made(options.data / "packed-pictures", "image-folder", write_pictures)
    numbers, files = {one.key: one.index for one in samples}, [one.file for one in samples]
    areas = np.array([float(np.prod(cv2.imread(str(file)).shape[:2])) for file in files])
    native = Native(patch=16, least=16, most=1024, flip=0.5)
    pictures: dict[str, Epoch] = {
        "maskstream": packed(split, numbers, ROW, native=native, mask=None),
        "maskstream, 75 % masked": packed(split, numbers, ROW // 4, native=native, mask=masks.Random(ratio=0.75)),
        "timm, NaFlex": naflex(files),
    }
    compare(f"{PICTURES} pictures", pictures, areas, options.rounds)

    split, samples = made(options.data / "packed-sounds", "audio-folder", write_sounds)
    numbers, files = {one.key: one.index for one in samples}, [one.file for one in samples]
    lengths = [importlib.import_module("soundfile").info(file).duration for file in files]
    tokens = int(SECONDS * 100 / 16) * BINS // 16
    native = Native(patch=16, least=16, most=1024)
    sounds: dict[str, Epoch] = {
        "maskstream": packed(split, numbers, tokens, native=native, mask=None),
        "maskstream, 75 % masked": packed(split, numbers, tokens // 4, native=native, mask=masks.Random(ratio=0.75)),
        "Lhotse, dynamic buckets": buckets(lengths, files),
    }
    compare(f"{SOUNDS} sounds", sounds, np.array(lengths), options.rounds)

    n, rng = 40_000, np.random.default_rng(0)
    many = np.exp(rng.uniform(*np.log([1, 10]), n))
    width, height = shapes(n, photos=True)
    room = Room(tokens=ROW)
    order = RowOrder(samples=samples_of(Drawn(width, height, most=1024), n, n // 100, room), global_batch=2)
    drawn = width.astype(float) * height
    print(f"\n| {n:,} samples in shards of 100 | correlation | neighbours of one shard | spread |")
    print("| --- | ---: | ---: | ---: |")
    for name, epoch, sizes in (
        ("maskstream, packed rows", rows_of(order), drawn),
        ("Lhotse, dynamic buckets, buffer of 20,000", buckets(many.tolist(), None), many),
    ):
        print(f"| {name} | {order_cells([one.samples for one in epoch(0)], sizes, 100)}")


if __name__ == "__main__":
    main()
