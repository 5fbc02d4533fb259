"""A small split of texts whose label is one known word among words that mean nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskstream.preprocess.encode.text.encoder import TextEncoder
from maskstream.preprocess.source import Source
from maskstream.shards.format.sample import Sample

from ..splits import write_samples

TELLING = ("good", "bad")
"""The word of each label."""
FILLERS = ("the", "a", "was", "it", "of", "and", "so", "in", "this", "film")
N = 8
"""The words of a text."""


def text_of(i: int) -> str:
    """Text `i`, with the word of its label i % 2 at a random place."""
    rng = np.random.default_rng(i)
    words = rng.choice(FILLERS, N).tolist()
    words[int(rng.integers(N))] = TELLING[i % 2]
    return " ".join(words)


def write_splits(folder: Path, train: int = 256, val: int = 128) -> tuple[Path, Path]:
    """The splits train and val, with one tokenizer, whose every word is one token."""
    sources = {
        name: [Source(id=f"{i}", path=Path(), computed=True, meta={"text": text_of(i)}) for i in numbers]
        for name, numbers in (("train", range(train)), ("val", range(train, train + val)))
    }
    encoder = TextEncoder(tokenizer="train:wordpiece:300").prepared(sources)
    for name, some in sources.items():
        split = folder / name
        split.mkdir(parents=True)
        for file, data in encoder.attached.items():
            (split / file).write_bytes(data)
        samples = [
            Sample(key=one.id, members=encoder.encode(one).members, source=one.id, label=int(one.id) % 2)
            for one in some
        ]
        write_samples(
            split,
            samples,
            "text",
            split=name,
            profile="text",
            label_names=TELLING,
            settings={"encoder": encoder.to_dict(defaults=True)},
        )
    return folder / "train", folder / "val"
