"""Scenes of stamps of Tux Paint on white, 128 x 128 pixels: which stamps take part, and where they lie.

The stamps are 24 whose caption is a noun of one word that no other stamp has. A scene has up to four of them, one in
each quarter. Scenes follow from the names that they are drawn by.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .scene import SCENE, drawn_scene
from .stamps_knowledge import named_noun
from .tuxpaint_stamps import captioned_stamps

STAMPS = 24
SIDE, HALF = 128, 64
SMALLEST, LARGEST = 32, 56
"""The longer side of a thing in pixels: from SMALLEST to LARGEST."""
LEFT_OUT = ("symbols", "seasonal", "people", "naturalforces")
"""Folders of signs, of persons, and of what is white on white."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """A stamp in a scene: its noun, its left upper corner and its longer side, in pixels."""

    noun: str
    x: int
    y: int
    longer: int

    @property
    def quarter(self) -> tuple[int, int]:
        """The row and the column of the quarter of the scene that it lies in."""
        return self.y // HALF, self.x // HALF


def named_stamps(root: Path, name: str) -> dict[str, Path]:
    """The stamps by their nouns, in an order that a hash decides, downloaded into `root`.

    DatasetError, for the dataset `name`, if that fails or there are too few.
    """
    stamps = [one for one in captioned_stamps(root) if one.label not in LEFT_OUT]
    counts = Counter(named_noun(stamp.caption) for stamp in stamps)
    named = {
        noun: stamp.path
        for stamp in stamps
        if counts[noun := named_noun(stamp.caption)] == 1 and noun.isascii() and noun.isalpha()
    }
    kept = sorted(named, key=lambda noun: xxhash.xxh3_64_intdigest(noun.encode()))[:STAMPS]
    if len(kept) < STAMPS:
        raise DatasetError(f"{name}: only {len(kept)} stamps below {root} have a noun of their own; remove its folder")
    return {noun: named[noun] for noun in kept}


def scene_rng(name: str) -> np.random.Generator:
    """The generator of a scene."""
    return np.random.Generator(np.random.Philox(xxhash.xxh3_64_intdigest(name.encode())))


def placed(noun: str, quarter: int, rng: np.random.Generator) -> Thing:
    """A stamp somewhere in a quarter, 0 to 3, of some size."""
    longer = int(rng.integers(SMALLEST, LARGEST + 1))
    x, y = (int(rng.integers(HALF - longer + 1)) for _ in range(2))
    return Thing(noun=noun, x=quarter % 2 * HALF + x, y=quarter // 2 * HALF + y, longer=longer)


def scene_source(name: str, things: list[Thing], paths: dict[str, Path], meta: dict[str, Any]) -> Source:
    """The source of a scene, with more that its `meta` says."""
    files = list(dict.fromkeys(thing.noun for thing in things))
    laid = [[files.index(thing.noun), thing.x, thing.y, thing.longer] for thing in things]
    return Source(
        id=name,
        path=paths[files[0]],
        parts=tuple(paths[noun] for noun in files[1:]),
        meta={SCENE: {"side": SIDE, "things": laid}, **meta},
        made_by=drawn_scene,
    )
