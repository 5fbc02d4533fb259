"""Scenes of three or four stamps of Tux Paint on white, 128 x 128 pixels, with a phrase for each and its true box.

In half of the scenes one stamp is there twice, and its phrases say which: "the left lion", "the upper lion". The stamps
are 160 whose caption is a noun of one or two words that no other stamp has. Both splits show the same stamps in other
scenes: what is measured is whether a phrase finds its place. The scenes follow from their numbers alone. Downloaded as
Debian's tuxpaint-stamps-default (81 MB, GPL-2).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import xxhash

from ....shards.errors import DatasetError
from ...encode.image_text.encoder import ImageTextEncoder
from ...encode.image_text.scene import SCENE
from ...source import Source
from ..dataset import Dataset
from .stamps_knowledge import noun_of
from .tuxpaint_stamps import TOKENIZER, captioned_stamps

NAME = "scenes-referring"
SCENES = {"train": 6000, "val": 1000}
STAMPS = 160
SIDE = 128
LEFT_OUT = ("symbols", "seasonal", "people", "naturalforces")
"""Folders of signs, of persons, and of what is white on white."""
Things = list[tuple[str, int, int, int]]


def scenes_referring(root: Path) -> Dataset:
    """The splits, of stamps downloaded into `root`. Raises DatasetError if the download fails."""
    stamps = [one for one in captioned_stamps(root) if one.label not in LEFT_OUT]
    counts = Counter(noun_of(stamp.caption) for stamp in stamps)
    named = {
        noun: stamp.path
        for stamp in stamps
        if counts[noun := noun_of(stamp.caption)] == 1 and len(noun.split()) <= 2 and noun.isascii()
    }
    kept = sorted(sorted(named, key=lambda noun: xxhash.xxh3_64_intdigest(noun.encode()))[:STAMPS])
    if len(kept) < STAMPS:
        raise DatasetError(f"{NAME}: only {len(kept)} stamps below {root} have a noun of their own; remove its folder")
    splits = {split: [scene(split, i, kept, named) for i in range(n)] for split, n in SCENES.items()}
    return Dataset(name=NAME, label_names=(), splits=splits, encoder=ImageTextEncoder(tokenizer=TOKENIZER))


def scene(split: str, number: int, nouns: list[str], paths: dict[str, Path]) -> Source:
    """Scene `number` of a split: a function of both, and of the nouns."""
    rng = np.random.Generator(np.random.Philox(xxhash.xxh3_64_intdigest(f"{split}/{number}".encode())))
    chosen = [nouns[i] for i in rng.permutation(len(nouns))[: rng.integers(3, 5)]]
    if rng.random() < 0.5:
        chosen[-1] = chosen[0]
    half = SIDE // 2
    things: Things = []
    for noun, cell in zip(chosen, rng.permutation(4), strict=False):
        longer = int(rng.integers(32, half - 7))
        x, y = (int(rng.integers(half - longer + 1)) for _ in range(2))
        things.append((noun, int(cell) % 2 * half + x, int(cell) // 2 * half + y, longer))
    files = list(dict.fromkeys(chosen))
    return Source(
        id=f"{split}/{number}",
        path=paths[files[0]],
        parts=tuple(paths[noun] for noun in files[1:]),
        meta={
            SCENE: {"side": SIDE, "things": [[files.index(noun), *place] for noun, *place in things]},
            "phrase": [phrase(i, things) for i in range(len(things))],
            "of": [*range(len(things))],
        },
    )


def phrase(i: int, things: Things) -> str:
    """What thing `i` is called: by its noun, and where it lies if another thing has the same noun."""
    noun, x, y, _ = things[i]
    twin = next((one for j, one in enumerate(things) if j != i and one[0] == noun), None)
    if twin is None:
        return f"the {noun}"
    half = SIDE // 2
    if x // half != twin[1] // half:
        return f"the {'left' if x < twin[1] else 'right'} {noun}"
    return f"the {'upper' if y < twin[2] else 'lower'} {noun}"
