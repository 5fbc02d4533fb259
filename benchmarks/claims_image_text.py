"""The claims of OneRef and MedThink in direction: small models, three seeds, whatever comes out.

    python benchmarks/claims_image_text.py strategies --data data/shards/scenes-counting --steps 600
    python benchmarks/claims_image_text.py referring --data data/shards/scenes-referring --steps 600

strategies: what a model writes of answer and rationale (MedThink): the answer alone, an explanation, reasoning, or two
stages; right answers by kind of question. referring: mask referring modelling (OneRef) and whole images, the same
steps; boxes with an overlap of 0.5, also for objects that training never showed. --data has the splits train and val.
OUT/NAME.json has the runs, and the table is printed (see claims.py).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from claims import SEEDS, Claim, Figures, Variant, compared

from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.pipelines.modalities.image_text.strategies import STRATEGIES, Strategy
from maskstream.shards.format.manifest import Manifest
from maskstream.train import Recipe
from maskstream.train.papers.medthink.evaluate import measure_writing
from maskstream.train.papers.medthink.model import RationaleWriter
from maskstream.train.papers.medthink.recipe import medthink_tiny
from maskstream.train.papers.oneref.evaluate import UNSEEN, measure_boxes, without_objects
from maskstream.train.papers.oneref.model import OneRef
from maskstream.train.papers.oneref.recipe import oneref_refer_tiny, oneref_tiny


def data_of(recipe: Recipe[ImageTextBatch]) -> ImageTextData:
    """The data config of a recipe of images with texts."""
    if not isinstance(recipe.data, ImageTextData):
        raise TypeError(f"{recipe.name} trains on images with texts")
    return recipe.data


def strategies(data: Path) -> Claim:
    """The three target strategies, and the answer alone."""
    tiny = medthink_tiny()
    config = data_of(tiny)

    def variant(name: Strategy) -> Variant:
        own = replace(config, **STRATEGIES[name])

        def measure(model: RationaleWriter) -> Figures:
            found = measure_writing(own, model, Manifest.load(data / "val"))
            return {**found.right, "right rationales": found.rationales or 0.0}

        return Variant(recipe=replace(tiny, data=own), train=data / "train", measure=measure)

    blind = measure_writing(config, None, Manifest.load(data / "val"))
    return Claim(
        says="a model that writes its reasons answers better",
        variants={name: variant(name) for name in STRATEGIES},
        measure=lambda model: {},
        baselines={
            "the most frequent answer to the kind": dict(blind.frequent),
            "the most frequent answer to the same words": dict(blind.unseen),
        },
    )


def referring(data: Path) -> Claim:
    """Mask referring modelling against whole images, both measured on whole images."""
    masked, plain = oneref_tiny(), oneref_refer_tiny()

    def measure(model: OneRef) -> Figures:
        figures: Figures = {}
        for split, of in (("val", "these objects"), (UNSEEN, "objects never shown")):
            found = measure_boxes(data_of(plain), model, Manifest.load(data / split))
            figures |= {f"{of}: boxes": found.found, f"{of}: overlap": found.overlap}
            figures |= {f"{of}: segments": found.segment or 0.0}
        return figures

    guesses = guessed(data_of(plain), data)
    return Claim(
        says="what a phrase refers to is learnt from masked images too",
        variants={one.name: Variant(recipe=one, train=data / "train") for one in (plain, masked)},
        measure=measure,
        baselines=guesses,
    )


def guessed(config: ImageTextData, data: Path) -> dict[str, Figures]:
    """The boxes of those who do not read the phrase, which are measured with any model."""
    model = oneref_refer_tiny().build().eval()
    assert isinstance(model, OneRef)
    found: dict[str, Figures] = {}
    for split, of in (("val", "these objects"), (UNSEEN, "objects never shown")):
        guesses = measure_boxes(config, model, Manifest.load(data / split)).guesses
        for name, share in (guesses if split == "val" else without_objects(guesses)).items():
            found.setdefault(name, {})[f"{of}: boxes"] = share
    return found


CLAIMS = {"strategies": strategies, "referring": referring}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("name", choices=tuple(CLAIMS), help="the claim")
    parser.add_argument("--data", type=Path, required=True, help="the folder of the splits")
    parser.add_argument("--steps", type=int, default=600, help="training steps of each run")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many seeds to run")
    parser.add_argument("--out", type=Path, default=Path("runs/claims"), help="the folder of the JSON files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    compared(CLAIMS[options.name](options.data), options.name, options.out, options.steps, SEEDS[: options.seeds])


if __name__ == "__main__":
    main()
