"""The claim of MGMAE in direction: small models, five seeds, whatever comes out.

    python benchmarks/claims_video.py motion --data data/shards/sample --steps 400

motion: motion-guided masks along the codec's flow against tubes, the same recipe, clips and steps. --data has the
splits train and val. Measured on val: the error of hidden pixels under both masks, in deviations of a colour, and what
neighbours say of the labels, by the mean of the encoder's tokens. OUT/NAME.json has the runs, and the table is printed
(see claims.py).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from claims import Claim, Figures, Variant, compared

from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.masks import Mask, MotionGuided, Tube
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.shards.format.manifest import Manifest
from maskstream.train import Recipe
from maskstream.train.evaluate.evaluation import read_batches
from maskstream.train.evaluate.features import knn_scores
from maskstream.train.nn.masked_autoencoder import MaskedAutoencoder
from maskstream.train.papers.videomae.recipe import videomae_tiny

SEEDS = (0, 1, 2, 3, 4)
K = 5
ROUNDS = 6
"""How often the held-out clips are gone through, each time with other moments and masks."""
MASKS: dict[str, Mask] = {"tube": Tube(ratio=0.75), "motion-guided": MotionGuided(ratio=0.75)}


def motion(options: argparse.Namespace) -> Claim:
    """Motion-guided masks against tubes."""
    data: Path = options.data
    tiny = videomae_tiny()
    config = tiny.data
    if not isinstance(config, VideoData):
        raise TypeError("videomae-tiny trains on clips")
    tiny = replace(tiny, schedule=replace(tiny.schedule, steps=options.steps))
    plain = replace(config, augment=CenterCrop(), colour=None, views=1, mask=MASKS["tube"])
    held_out = {
        name: list(
            read_batches(
                replace(plain, mask=mask, flow="codec"),
                Manifest.load(data / "val"),
                size=8,
                samples=1 << 14,
                rounds=ROUNDS,
            )
        )
        for name, mask in MASKS.items()
    }
    seen = list(read_batches(plain, Manifest.load(data / "train"), size=8, samples=1 << 14, rounds=2))
    unseen = list(read_batches(plain, Manifest.load(data / "val"), size=8, samples=1 << 14, rounds=ROUNDS))
    classes = len(list(read_dataset_json(data / "train")["label_names"]))

    @torch.inference_mode()
    def measure(model: MaskedAutoencoder[VideoBatch]) -> Figures:
        errors = {
            f"error, {name} masks": sum(float(model(batch).loss()) for batch in some) / len(some)
            for name, some in held_out.items()
        }
        return {**errors, f"{K}-NN accuracy": neighbours(model, seen, unseen, classes)}

    untrained = [measure(tiny.build(seed=seed).eval()) for seed in SEEDS]
    return Claim(
        says="tokens that are hidden along the motion leak less, so the features are better",
        variants={
            name: Variant(recipe=with_mask(tiny, config, mask), train=data / "train") for name, mask in MASKS.items()
        },
        measure=measure,
        baselines={"random weights": {n: sum(one[n] for one in untrained) / len(untrained) for n in untrained[0]}},
    )


def with_mask(tiny: Recipe[Any], config: VideoData, mask: Mask) -> Recipe[Any]:
    """The recipe with another mask; `codec` flow in both, so that both cost the same."""
    return replace(tiny, data=replace(config, mask=mask, flow="codec"))


def neighbours(
    model: MaskedAutoencoder[VideoBatch], seen: list[VideoBatch], unseen: list[VideoBatch], classes: int
) -> float:
    """The share of the held-out clips whose label K neighbours among `seen` vote for."""
    train, test = (torch.cat([model.features(batch) for batch in some]).float() for some in (seen, unseen))
    mean, deviation = train.mean(dim=0), train.std(dim=0).clamp(min=1e-6)
    labels, truth = (torch.cat([batch.label for batch in some]) for some in (seen, unseen))
    has = torch.nn.functional.one_hot(labels, classes).float()
    votes = knn_scores((train - mean) / deviation, has, (test - mean) / deviation, K)
    return float((votes.argmax(dim=1) == truth).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("name", choices=("motion",), help="the claim")
    parser.add_argument("--data", type=Path, default=Path("data/shards/sample"), help="the folder of the splits")
    parser.add_argument("--steps", type=int, default=400, help="training steps of each run")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many of the five seeds to run")
    parser.add_argument("--out", type=Path, default=Path("runs/claims"), help="the folder of the JSON files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    compared(motion(options), options.name, options.out, options.steps, SEEDS[: options.seeds])


if __name__ == "__main__":
    main()
