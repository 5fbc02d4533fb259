"""A small split of pictures of three kinds that a model of patches can tell apart."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.source import Source
from maskstream.shards.format.sample import Sample
from maskstream.shards.members.text import json_member

from ..splits import write_samples

SET = ("data.size=16", "data.patch=4", "batch_size=8", "model.width=32", "model.depth=1", "model.heads=2")
DECODER = ("model.decoder_width=16", "model.decoder_depth=1", "model.decoder_heads=2")
SMALL = (*SET, *DECODER)
NAMES = ("flat", "lined", "dotted")


def picture(label: int, rng: np.random.Generator) -> np.ndarray:
    """A ground of any colour with nothing, lines or dots."""
    image = np.empty((16, 16, 3), np.uint8)
    image[:] = rng.integers(60, 200, 3)
    if label == 1:
        image[rng.integers(0, 2) :: 2] -= 50
    if label == 2:
        image[rng.integers(0, 2) :: 2, rng.integers(0, 2) :: 2] -= 50
    return image


def write_split(folder: Path, n: int, seed: int, *, several: bool = False, names: tuple[str, ...] = NAMES) -> Path:
    """`n` pictures with the labels 0, 1, 2, 0, ...; the last has none. several: each also has the class 2 in `json`.
    names: of the numbers; with those of `NAMES` in another order, a picture keeps its name and not its number.
    """
    numbers = [names.index(name) for name in NAMES] if {*names} == {*NAMES} else [0, 1, 2]
    rng = np.random.default_rng(seed)
    (folder / "raw").mkdir(parents=True)
    samples = []
    for i in range(n):
        path = folder / "raw" / f"{i}.png"
        cv2.imwrite(str(path), picture(i % 3, rng))
        made = ImageEncoder().encode(Source(id=f"{i}", path=path))
        extra = {"labels": [numbers[i % 3], numbers[2]]} if several else {}
        members = {**made.members, "json": json_member({**made.meta, **extra})}
        label = -1 if i == n - 1 else numbers[i % 3]
        samples.append(Sample(key=f"s{i:03d}", members=members, source=f"{i}", label=label))
    split = folder / "split"
    return write_samples(split, samples, "image", profile="image", label_names=names)
