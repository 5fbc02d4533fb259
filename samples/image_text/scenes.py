"""Scenes of Tux Paint stamps on white, 128 x 128 pixels, with texts: phrases, or questions and rationales.

The stamps are 24 whose caption is a noun of one word that no other stamp has. A scene has up to four of them, one in
each quarter, and is determined by its name. Downloaded as Debian's tuxpaint-stamps-default (81 MB, GPL-2).

`scenes-referring`: three or four stamps with a phrase for each, its true box and its true segment. In half of the
scenes one stamp occurs twice, and its phrases distinguish the two by position or size: "the left lion", "the large
lion". `train` and `val` show the same 16 stamps in different scenes: `val` measures whether a phrase is located
correctly. The scenes of `unseen` include one of 8 other stamps, or one of them twice, and only phrases about it:
objects and nouns that never occur in training.

`scenes-counting`: two to four things of three kinds, of 16 stamps in all, with a question, its answer and the
rationale, which names the quarters in reading order. The label is the answer.

- count: "how often is the lion there?", none, once, twice, three or four times: "lion, pear, lion, nothing: twice"
- more: "is the lion there more often than the pear?", yes or no: "lion, pear, lion, nothing: twice, once"
- beside: "what is beside the lion?" where it is there once: "lion, pear, lion, nothing: the lower left is beside it"
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from maskstream.preprocess.datasets.dataset import Dataset, number_answers
from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .scene import SCENE, draw_scene
from .tuxpaint_stamps import list_captioned_stamps

STAMPS, SEEN = 24, 16
"""Number of stamps, and number of those shown in all splits except `unseen`."""
SIDE, HALF = 128, 64
SMALLEST, LARGEST = 32, 56
"""The longer side of a thing in pixels: from SMALLEST to LARGEST."""
LARGER = 1.3
"""Ratio of lengths from which one stamp is "large" and the other one "small"."""
LEFT_OUT = ("symbols", "seasonal", "people", "naturalforces")
"""Folders of signs, persons, and white objects on white."""
ARTICLES = ("a ", "an ", "the ", "some ")
REFERRING = {"train": 3000, "val": 640, "unseen": 320}
COUNTING = {"train": 6000, "val": 1000}
TIMES = ("none", "once", "twice", "three", "four")
NOTHING = "nothing"
QUARTERS = ("upper left", "upper right", "lower left", "lower right")
ENCODER = ImageTextEncoder(tokenizer="train:wordpiece:512")


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """A stamp in a scene: its noun, its left upper corner and its longer side, in pixels."""

    noun: str
    x: int
    y: int
    longer: int


def scenes_referring(root: Path) -> Dataset:
    """Return the splits, of stamps downloaded into `root`. Raises DatasetError if the download fails."""
    paths = sort_stamps(root)
    splits = {split: [draw_referring(split, i, paths) for i in range(n)] for split, n in REFERRING.items()}
    return Dataset(name="scenes-referring", label_names=(), splits=splits, encoder=ENCODER)


def scenes_counting(root: Path) -> Dataset:
    """Return the splits, of stamps downloaded into `root`. Raises DatasetError if the download fails."""
    paths = sort_stamps(root)
    splits = {split: [counting(split, i, paths) for i in range(n)] for split, n in COUNTING.items()}
    label_names, splits = number_answers(splits)
    return Dataset(name="scenes-counting", label_names=label_names, splits=splits, encoder=ENCODER)


def sort_stamps(root: Path) -> dict[str, Path]:
    """Return the stamps by their nouns, in an order determined by a hash, downloaded into `root`.

    Raises DatasetError if that fails or there are too few.
    """
    stamps = [(extract_noun(one.caption), one.path) for one in list_captioned_stamps(root) if one.label not in LEFT_OUT]
    counts = Counter(noun for noun, _ in stamps)
    named = {noun: path for noun, path in stamps if counts[noun] == 1 and noun.isascii() and noun.isalpha()}
    kept = sorted(named, key=lambda noun: xxhash.xxh3_64_intdigest(noun.encode()))[:STAMPS]
    if len(kept) < STAMPS:
        raise DatasetError(f"only {len(kept)} stamps below {root} have a noun of their own; remove its folder")
    return {noun: named[noun] for noun in kept}


def extract_noun(caption: str) -> str:
    """Return the noun of a caption, without its article and its full stop."""
    words = caption.strip().rstrip(".!").lower()
    return words.removeprefix(next((one for one in ARTICLES if words.startswith(one)), ""))


def _seed_rng(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(xxhash.xxh3_64_intdigest(name.encode())))


def _place_stamp(noun: str, quarter: int, rng: np.random.Generator) -> Thing:
    """Place a stamp somewhere in a quarter, 0 to 3, at a random size."""
    longer = int(rng.integers(SMALLEST, LARGEST + 1))
    x, y = (int(rng.integers(HALF - longer + 1)) for _ in range(2))
    return Thing(noun=noun, x=quarter % 2 * HALF + x, y=quarter // 2 * HALF + y, longer=longer)


def _source(name: str, things: list[Thing], paths: dict[str, Path], meta: dict[str, Any]) -> Source:
    """Return the source of a scene, with more entries for its `meta`."""
    files = list(dict.fromkeys(thing.noun for thing in things))
    laid = [[files.index(thing.noun), thing.x, thing.y, thing.longer] for thing in things]
    return Source(
        id=name,
        path=paths[files[0]],
        parts=tuple(paths[noun] for noun in files[1:]),
        meta={SCENE: {"side": SIDE, "things": laid}, **meta},
        made_by=draw_scene,
    )


def draw_referring(split: str, number: int, paths: dict[str, Path]) -> Source:
    """Return scene `number` of a split: a function of both, and of the stamps."""
    name = f"{split}/{number}"
    rng, nouns = _seed_rng(name), list(paths)
    seen, unseen = nouns[:SEEN], nouns[SEEN:]
    chosen = [seen[i] for i in rng.permutation(len(seen))[: rng.integers(3, 5)]]
    if split == "unseen":
        chosen[0] = unseen[int(rng.integers(len(unseen)))]
    if rng.random() < 0.5:
        chosen[-1] = chosen[0]
    things = [_place_stamp(noun, int(place), rng) for noun, place in zip(chosen, rng.permutation(4), strict=False)]
    of = [i for i, thing in enumerate(things) if split != "unseen" or thing.noun in unseen]
    by_size = rng.random() < 0.5
    return _source(name, things, paths, {"phrase": [phrase(i, things, by_size=by_size) for i in of], "of": of})


def phrase(i: int, things: list[Thing], *, by_size: bool) -> str:
    """Return the phrase for thing `i`: its noun, with its size or position if another thing has the same noun.

    Args:
        i: Number of the thing.
        things: Things of the scene.
        by_size: Use the size, if the sizes differ enough.
    """
    own = things[i]
    twin = next((one for j, one in enumerate(things) if j != i and one.noun == own.noun), None)
    if twin is None:
        return f"the {own.noun}"
    short, long = sorted((own.longer, twin.longer))
    if by_size and long >= LARGER * short:
        return f"the {'large' if own.longer == long else 'small'} {own.noun}"
    if own.x // HALF != twin.x // HALF:
        return f"the {'left' if own.x < twin.x else 'right'} {own.noun}"
    return f"the {'upper' if own.y < twin.y else 'lower'} {own.noun}"


def counting(split: str, number: int, paths: dict[str, Path]) -> Source:
    """Return question `number` of a split: a function of both, and of the stamps."""
    name = f"{split}/{number}"
    rng, nouns = _seed_rng(f"counting/{name}"), list(paths)[:SEEN]
    kinds = [nouns[i] for i in rng.permutation(SEEN)[:3]]
    shown = [NOTHING] * 4
    for quarter in rng.permutation(4)[: rng.integers(2, 5)]:
        shown[quarter] = kinds[rng.integers(3)]
    things = [_place_stamp(noun, i, rng) for i, noun in enumerate(shown) if noun != NOTHING]
    kind, question, answer, reason = _draw_question(shown, kinds, rng)
    rationale = f"{', '.join(shown)}: {reason}"
    meta = {"kind": kind, "question": question, "answer": answer, "rationale": rationale}
    return _source(name, things, paths, meta)


def _draw_question(shown: list[str], kinds: list[str], rng: np.random.Generator) -> tuple[str, str, str, str]:
    """A question about the four quarters: its kind, its words, the answer and the rationale."""
    first, second = (kinds[i] for i in rng.permutation(3)[:2])
    once = [noun for noun in kinds if shown.count(noun) == 1]
    kind = ("count", "more", "beside")[rng.integers(3)]
    if kind == "beside" and once:
        noun = once[rng.integers(len(once))]
        other = shown.index(noun) ^ 1
        return kind, f"what is beside the {noun}?", shown[other], f"the {QUARTERS[other]} is beside it"
    counts = shown.count(first), shown.count(second)
    if kind == "more":
        question = f"is the {first} there more often than the {second}?"
        answer = "yes" if counts[0] > counts[1] else "no"
        return kind, question, answer, f"{TIMES[counts[0]]}, {TIMES[counts[1]]}"
    return "count", f"how often is the {first} there?", TIMES[counts[0]], TIMES[counts[0]]
