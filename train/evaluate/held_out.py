"""Held-out samples for evaluations, the same at each call."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.format.manifest import Manifest, SplitLocation


def read_batches(
    config: DataConfig[BatchT],
    data: SplitLocation,
    *,
    size: int,
    samples: int,
    shuffle: bool = False,
    steps: int = 1,
    rounds: int = 1,
) -> Iterator[BatchT]:
    """Batches of `size` samples, up to `samples` in all, of the split at `data`: on the CPU, the same at each call.

    rounds: how often the split is gone through, each time with other draws of clips, crops and masks.
    """
    loader = config.loader(
        data, batch_size=size, shuffle=shuffle, seed=0, device="cpu", rank=0, world_size=1, steps=steps
    )
    for _ in range(rounds):
        yield from islice(loader, -(-samples // size))
    loader.close()


def read_shuffled(config: DataConfig[BatchT], data: SplitLocation, *, most: int, size: int) -> Iterator[BatchT]:
    """Whole batches of up to `most` shuffled samples of a split, of `size` samples or of all that it has."""
    n = min(len(Manifest.load(data)), most)
    size = min(n, size)
    return read_batches(config, data, size=size, samples=n // size * size, shuffle=True)


def read_first(config: DataConfig[BatchT], data: SplitLocation, shown: int) -> BatchT:
    """One batch of up to `shown` shuffled samples."""
    return next(read_shuffled(config, data, most=shown, size=shown))


def trained_on(data: SplitLocation) -> SplitLocation:
    """The split of which baselines may know what a model was trained on: `train` beside `data`.

    Where there is none it is `data` itself, whose own counts and means are harder to beat.
    """
    beside = Path(str(data)).parent / "train"
    return Manifest.load(beside) if (beside / "dataset.json").is_file() else data
