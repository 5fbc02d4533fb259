"""Questions about scenes of stamps of Tux Paint whose rationale is what the scene shows, step by step.

A scene has two to four things of three kinds, of 16 stamps in all. A sample is a scene with a question, its answer and
the rationale that gives it:

- count: "how often is the lion there?", none, once, twice, three or four times: "lion, pear, lion, nothing: twice"
- more: "is the lion there more often than the pear?", yes or no: "lion, pear, lion, nothing: twice, once"
- beside: "what is beside the lion?" where it is there once: "lion, pear, lion, nothing: the lower left is beside it"

A rationale names the quarters in the order of reading. The label is the answer. `train` and `val` have the same stamps
in other scenes. Downloaded as Debian's tuxpaint-stamps-default (81 MB, GPL-2).
"""

from pathlib import Path
from typing import Any

import numpy as np

from maskstream.preprocess.datasets.dataset import Dataset, answer_labels
from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.preprocess.source import Source

from .scenes import Thing, named_stamps, placed, scene_rng, scene_source

NAME = "scenes-counting"
SCENES = {"train": 6000, "val": 1000}
STAMPS = 16
TIMES = ("none", "once", "twice", "three", "four")
NOTHING = "nothing"
QUARTERS = ("upper left", "upper right", "lower left", "lower right")
TOKENIZER = "train:wordpiece:512"


def scenes_counting(root: Path) -> Dataset:
    """The splits, of stamps downloaded into `root`. Raises DatasetError if the download fails."""
    paths = dict(list(named_stamps(root, NAME).items())[:STAMPS])
    splits = {split: [asked(split, i, paths) for i in range(n)] for split, n in SCENES.items()}
    label_names, splits = answer_labels(splits)
    return Dataset(name=NAME, label_names=label_names, splits=splits, encoder=ImageTextEncoder(tokenizer=TOKENIZER))


def asked(split: str, number: int, paths: dict[str, Path]) -> Source:
    """Question `number` of a split: a function of both, and of the stamps."""
    name = f"{split}/{number}"
    rng, nouns = scene_rng(f"counting/{name}"), list(paths)
    kinds = [nouns[i] for i in rng.permutation(len(nouns))[:3]]
    shown = [NOTHING] * 4
    for quarter in rng.permutation(4)[: rng.integers(2, 5)]:
        shown[quarter] = kinds[rng.integers(3)]
    things: list[Thing] = [placed(noun, i, rng) for i, noun in enumerate(shown) if noun != NOTHING]
    return scene_source(name, things, paths, question(shown, kinds, rng))


def question(shown: list[str], kinds: list[str], rng: np.random.Generator) -> dict[str, Any]:
    """A question about the four quarters: its kind and its texts."""
    first, second = (kinds[i] for i in rng.permutation(3)[:2])
    said = ", ".join(shown)
    once = [noun for noun in kinds if shown.count(noun) == 1]
    kind = ("count", "more", "beside")[rng.integers(3)]
    if kind == "beside" and once:
        noun = once[rng.integers(len(once))]
        other = shown.index(noun) ^ 1
        return {
            "kind": kind,
            "question": f"what is beside the {noun}?",
            "answer": shown[other],
            "rationale": f"{said}: the {QUARTERS[other]} is beside it",
        }
    times = [TIMES[shown.count(noun)] for noun in (first, second)]
    if kind == "more":
        more = shown.count(first) > shown.count(second)
        return {
            "kind": kind,
            "question": f"is the {first} there more often than the {second}?",
            "answer": "yes" if more else "no",
            "rationale": f"{said}: {times[0]}, {times[1]}",
        }
    return {
        "kind": "count",
        "question": f"how often is the {first} there?",
        "answer": times[0],
        "rationale": f"{said}: {times[0]}",
    }
