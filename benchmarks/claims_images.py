"""Claims of the papers of pictures in direction: small models, three seeds, whatever comes out.

    python benchmarks/claims_images.py teacher --data data/shards/sample-image --labelled data/shards/fashion-mnist
    python benchmarks/claims_images.py pairs   --data data/shards/metaworld --labelled data/shards/metaworld-frames

teacher: DMAE with the model of --teacher, a run of mae-tiny on the same --data, and the same student without one.
pairs: SiamMAE on the clips of --data and CropMAE on their frames, which --labelled keeps and which are made once. All
have the splits train and val. Measured is what neighbours say of the labels of the held-out pictures of --labelled, by
the mean of the encoder's tokens; OUT/NAME.json has the runs, and the table is printed (see claims.py).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import torch
from claims import SEEDS, Claim, Figures, Variant, compared
from torch import Tensor

from maskstream.pipelines import VideoClip
from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.masks import Random
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import read_batches
from maskstream.train.evaluate.features import knn_scores
from maskstream.train.evaluate.patches import evaluate
from maskstream.train.nn.masked_autoencoder import MaskedAutoencoder
from maskstream.train.papers.cropmae.model import CrossAutoencoder
from maskstream.train.papers.cropmae.recipe import cropmae_tiny, siammae_tiny
from maskstream.train.papers.dmae.recipe import dmae_tiny

K = 10
FRAMES = 4
"""How many frames of a clip become pictures."""
Encoder = Callable[[Any, ImageBatch], Tensor]
"""Of a model and pictures, a vector of each, (B, D)."""


def neighbours(data: Path) -> Callable[[Encoder, Any], float]:
    """The share of the held-out pictures of a labelled split whose label K neighbours in `train` vote for."""
    plain = ImageData(size=64, patch=8, mask=Random(ratio=0.75), augment=CenterCrop())
    seen, unseen = (
        list(read_batches(plain, Manifest.load(data / name), size=64, samples=1 << 14)) for name in ("train", "val")
    )
    classes = len(list(read_dataset_json(data / "train")["label_names"]))

    @torch.inference_mode()
    def share(encoder: Encoder, model: Any) -> float:
        train, test = (torch.cat([encoder(model, batch) for batch in some]).float() for some in (seen, unseen))
        mean, deviation = train.mean(dim=0), train.std(dim=0).clamp(min=1e-6)
        labels, truth = (torch.cat([batch.label for batch in some]) for some in (seen, unseen))
        has = torch.nn.functional.one_hot(labels, classes).float()
        votes = knn_scores((train - mean) / deviation, has, (test - mean) / deviation, K)
        return float((votes.argmax(dim=1) == truth).float().mean())

    return share


def of_autoencoder(model: MaskedAutoencoder[ImageBatch], batch: ImageBatch) -> Tensor:
    """The mean of the encoder's tokens, none hidden."""
    return model.features(batch)


def of_pair(model: CrossAutoencoder[Any], batch: ImageBatch) -> Tensor:
    """The mean of the encoder's tokens of a picture alone, none hidden."""
    every = torch.arange(model.tokens.n_tokens).expand(len(batch), -1)
    return model.encode(batch.image, every).mean(dim=1)


def of_pixels(model: object, batch: ImageBatch) -> Tensor:
    """The pixels themselves, shrunk to 16 x 16."""
    return batch.image.float().unflatten(1, (16, -1)).unflatten(3, (16, -1)).mean(dim=(2, 4)).flatten(1)


def spread(values: Mapping[str, list[float]]) -> Figures:
    """The mean of each list."""
    return {name: sum(some) / len(some) for name, some in values.items()}


def teacher(options: argparse.Namespace, steps: int) -> Claim:
    """DMAE against the same student without its teacher."""
    data: Path = options.data
    share, tiny = neighbours(options.labelled), dmae_tiny()
    tiny = replace(tiny, schedule=replace(tiny.schedule, steps=steps))
    own = replace(tiny, model=replace(tiny.model, teacher=str(options.teacher / "model.safetensors")))
    alone = replace(tiny, model=replace(tiny.model, teacher=None))
    if not isinstance(tiny.data, ImageData):
        raise TypeError("dmae-tiny trains on pictures")
    pictures = tiny.data

    def measure(model: MaskedAutoencoder[ImageBatch]) -> Figures:
        error = evaluate(model, pictures, Manifest.load(data / "val"), 2).scores[0].value
        return {f"{K}-NN accuracy": share(of_autoencoder, model), "error of hidden pixels": error}

    untrained = [share(of_autoencoder, alone.build(seed=seed).eval()) for seed in SEEDS]
    return Claim(
        says="the features of a larger, frozen teacher make a better student than pixels alone",
        variants={
            "DMAE, with its teacher": Variant(recipe=own, train=data / "train"),
            "the same without a teacher": Variant(recipe=alone, train=data / "train"),
        },
        measure=measure,
        baselines={
            "random weights": spread({f"{K}-NN accuracy": untrained}),
            "pixels": {f"{K}-NN accuracy": share(of_pixels, None)},
        },
    )


def pairs(options: argparse.Namespace, steps: int) -> Claim:
    """CropMAE on frames against SiamMAE on the clips that they are of."""
    data, frames = options.data, options.labelled
    if not (frames / "val").exists():
        write_frames(data, frames)
    share, siam, crop = neighbours(frames), siammae_tiny(), cropmae_tiny()
    clip = replace(siam.data, clip=VideoClip(frames=2, stride=2, size=64), views=4)
    siam = replace(siam, data=clip, schedule=replace(siam.schedule, steps=steps))
    crop = replace(crop, schedule=replace(crop.schedule, steps=steps))
    untrained = [share(of_pair, crop.build(seed=seed).eval()) for seed in SEEDS]
    return Claim(
        says="two crops of a picture teach an encoder as much as two frames of a video",
        variants={
            "CropMAE, on frames": Variant(recipe=crop, train=frames / "train"),
            "SiamMAE, on clips": Variant(recipe=siam, train=data / "train"),
        },
        measure=lambda model: {f"{K}-NN accuracy": share(of_pair, model)},
        baselines={
            "random weights": spread({f"{K}-NN accuracy": untrained}),
            "pixels": {f"{K}-NN accuracy": share(of_pixels, None)},
        },
    )


def write_frames(clips: Path, out: Path) -> None:
    """Splits of pictures: the frames of the clips of a labelled split, in its parts train and val."""
    config = VideoData(clip=VideoClip(frames=FRAMES, stride=1, size=64), mask=None, augment=CenterCrop())
    with tempfile.TemporaryDirectory() as folder:
        for part in ("train", "val"):
            names = list(read_dataset_json(clips / part)["label_names"])
            for i, batch in enumerate(read_batches(config, Manifest.load(clips / part), size=1, samples=1 << 14)):
                inside = Path(folder) / part / names[int(batch.label[0])]
                inside.mkdir(parents=True, exist_ok=True)
                for time, frame in enumerate(batch.video[0].numpy()):
                    cv2.imwrite(str(inside / f"{i:05d}-{time}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        words = ["shards", "imagefolder", "--root", folder, "--out", str(out)]
        subprocess.run([sys.executable, "-m", "maskstream", *words], check=True)


CLAIMS: dict[str, Callable[[argparse.Namespace, int], Claim]] = {"teacher": teacher, "pairs": pairs}


def main() -> None:
    """Trains the variants of one claim, seed by seed, and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claim", choices=CLAIMS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, default=Path("runs/mae-tiny"))
    parser.add_argument("--labelled", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/claims"))
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    compared(CLAIMS[options.claim](options, options.steps), options.claim, options.out, options.steps)


if __name__ == "__main__":
    main()
