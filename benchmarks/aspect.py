"""Pictures for a probe of aspect: each at its own aspect, and squashed into a square of as many pixels.

    python benchmarks/aspect.py data/raw/shapes

writes OUT/own and OUT/squares, two image folders of the same pictures, and prints how far the aspect tells the label
beside squashed pixels, on the training split alone. The pictures are drawn shapes of twelve labels: four outlines, each
tall, even or wide. A square loses which of the three it is, except for noise that is smeared along the side that was
lengthened.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from maskstream.train.evaluate.features import linear_scores

Picture = tuple[str, str, Image.Image]
"""The split, the label and the pixels."""
OUTLINES = ("box", "diamond", "ellipse", "triangle")
ASPECTS = {"tall": (-1.2, -0.5), "even": (-0.25, 0.25), "wide": (0.5, 1.2)}
"""Binary logarithms of width over height."""
COUNTS = {"train": 1800, "val": 900}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    squashed, aspects, labels = [], [], []
    for number, (split, label, own) in enumerate(shapes()):
        side = max(round((own.width * own.height) ** 0.5), 1)
        square = own.resize((side, side), Image.Resampling.LANCZOS)
        for form, picture in (("own", own), ("squares", square)):
            path = args.out / form / split / label / f"{number:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
        if split == "train":
            squashed.append(np.asarray(square.resize((12, 12)), np.float64).ravel() / 255)
            aspects.append(np.log2(own.width / own.height))
            labels.append(label)
    aspect = np.array(aspects)
    told = 3 * np.stack([aspect, aspect**2, np.abs(aspect)], axis=1)
    print(f"{len(labels)} pictures for training, the largest label {max(map(labels.count, labels)) / len(labels):.3f}")
    for name, features in (("aspect", told), ("squashed pixels", np.stack(squashed)), ("both", np.c_[squashed, told])):
        print("{}: linear {:.3f}, 10 neighbours {:.3f}".format(name, *right(features, labels)))


def shapes() -> Iterator[Picture]:
    """One colour on another, with noise. Size, aspect and colours of each are drawn."""
    for split, count in COUNTS.items():
        for number in range(count):
            rng = np.random.default_rng((split == "val", number))
            outline, aspect = OUTLINES[number % 4], list(ASPECTS)[number // 4 % 3]
            log = rng.uniform(*ASPECTS[aspect])
            side = rng.uniform(48, 88)
            wide, tall = round(side * 2 ** (log / 2)), round(side / 2 ** (log / 2))
            back, ink = (tuple(rng.integers(0, 256, 3).tolist()) for _ in range(2))
            picture = Image.new("RGB", (wide, tall), back)
            inner = (wide * 0.08, tall * 0.08, wide * 0.92, tall * 0.92)
            draw_outline(ImageDraw.Draw(picture), outline, inner, ink)
            noisy = np.asarray(picture, np.float64) + rng.normal(0, 20, (tall, wide, 3))
            yield split, f"{outline}-{aspect}", Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def draw_outline(
    draw: ImageDraw.ImageDraw, outline: str, box: tuple[float, float, float, float], ink: tuple[int, ...]
) -> None:
    left, top, right, bottom = box
    middle = ((left + right) / 2, (top + bottom) / 2)
    if outline == "box":
        draw.rectangle(box, fill=ink)
    elif outline == "ellipse":
        draw.ellipse(box, fill=ink)
    elif outline == "triangle":
        draw.polygon([(left, bottom), (right, bottom), (middle[0], top)], fill=ink)
    else:
        draw.polygon([(left, middle[1]), (middle[0], top), (right, middle[1]), (middle[0], bottom)], fill=ink)


def right(features: npt.NDArray[np.float64], labels: list[str]) -> tuple[float, float]:
    """The shares of right labels of a linear classifier and of 10 neighbours, on four parts of the split in turn."""
    names, numbers = np.unique(labels, return_inverse=True)
    x, y, classes = torch.from_numpy(features), torch.from_numpy(numbers), len(names)
    part = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)) % 4
    linear = neighbours = 0
    for held in (part == n for n in range(4)):
        seen, unseen = x[~held], x[held]
        mean, deviation = seen.mean(dim=0), seen.std(dim=0).clamp_min(1e-6)
        seen, unseen = (seen - mean) / deviation, (unseen - mean) / deviation
        scores = linear_scores(seen, y[~held], unseen, classes, penalties=(1e-2,))
        linear += int((scores.argmax(dim=1) == y[held]).sum())
        near = torch.cdist(x[held], x[~held]).topk(10, largest=False).indices
        votes = torch.nn.functional.one_hot(y[~held][near], classes).sum(dim=1)
        neighbours += int((votes.argmax(dim=1) == y[held]).sum())
    return linear / len(x), neighbours / len(x)


if __name__ == "__main__":
    main()
