"""Scenes of three or four stamps of Tux Paint with a phrase for each, its true box and its true segment.

In half of the scenes one stamp is there twice, and its phrases say which by place or by size: "the left lion", "the
large lion". `train` and `val` show the same 16 stamps in other scenes: `val` measures whether a phrase finds its place.
The scenes of `unseen` have one of 8 other stamps among them, or one of them twice, and phrases of it alone: objects and
nouns that training never showed. Downloaded as Debian's tuxpaint-stamps-default (81 MB, GPL-2).
"""

from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.preprocess.source import Source

from .scenes import HALF, Thing, named_stamps, placed, scene_rng, scene_source

NAME = "scenes-referring"
SCENES = {"train": 3000, "val": 640, "unseen": 320}
SEEN = 16
"""How many of the stamps train and val show."""
LARGER = 1.3
"""So many times as long a stamp is "large" and the other one "small"."""
TOKENIZER = "train:wordpiece:512"


def scenes_referring(root: Path) -> Dataset:
    """The splits, of stamps downloaded into `root`. Raises DatasetError if the download fails."""
    paths = named_stamps(root, NAME)
    splits = {split: [scene(split, i, paths) for i in range(n)] for split, n in SCENES.items()}
    return Dataset(name=NAME, label_names=(), splits=splits, encoder=ImageTextEncoder(tokenizer=TOKENIZER))


def scene(split: str, number: int, paths: dict[str, Path]) -> Source:
    """Scene `number` of a split: a function of both, and of the stamps."""
    name = f"{split}/{number}"
    rng, nouns = scene_rng(name), list(paths)
    seen, unseen = nouns[:SEEN], nouns[SEEN:]
    chosen = [seen[i] for i in rng.permutation(len(seen))[: rng.integers(3, 5)]]
    if split == "unseen":
        chosen[0] = unseen[int(rng.integers(len(unseen)))]
    if rng.random() < 0.5:
        chosen[-1] = chosen[0]
    things = [placed(noun, int(place), rng) for noun, place in zip(chosen, rng.permutation(4), strict=False)]
    of = [i for i, thing in enumerate(things) if split != "unseen" or thing.noun in unseen]
    by_size = rng.random() < 0.5
    phrases = [phrase(i, things, by_size=by_size) for i in of]
    return scene_source(name, things, paths, {"phrase": phrases, "of": of})


def phrase(i: int, things: list[Thing], *, by_size: bool) -> str:
    """What thing `i` is called: by its noun, and by its size or place if another thing has the same noun."""
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
