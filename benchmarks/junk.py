"""What junk costs a training: writes a split with planted junk, and the same, curated.

    python benchmarks/junk.py data/shards/fashion-mnist/train data/shards/junk [--most 10000] [--share 0.3]

Junk is black, flat, or a copy (encoded again) of one of a hundred pictures, in equal parts; `planted` holds all, and
`curated` the same and a version without what `maskstream curate --keep "contrast>0.02" --copies` removes. It prints how
much of the junk goes, and how much else.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from maskstream.preprocess.curate import curate
from maskstream.preprocess.curate.measures import picture
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.image import IMAGE, image_member


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("split")
    parser.add_argument("out", type=Path)
    parser.add_argument("--most", type=int, default=10_000, help="how many of the split's pictures")
    parser.add_argument("--share", type=float, default=0.3, help="the share of junk")
    asked = parser.parse_args()
    manifest = Manifest.load(asked.split)
    name = next(name for name, one in manifest.components.items() if one.kind == IMAGE.name)
    rng = np.random.default_rng(0)
    numbers = np.sort(rng.permutation(len(manifest))[: asked.most]).tolist()
    data = manifest.store.read_many([manifest.member(number, name) for number in numbers])
    labels = [int(manifest.label[number]) for number in numbers]
    pictures = [(f"own/{at:05d}", one, label) for at, (one, label) in enumerate(zip(data, labels, strict=True))]
    height, width = picture(data[0]).shape[:2]
    junk = round(len(pictures) * asked.share / (1 - asked.share))
    for at in range(junk):
        kind = ("black", "flat", "copy")[at % 3]
        of = int(rng.integers(100))
        if kind == "copy":
            pixels = picture(data[of])
        else:
            pixels = np.full((height, width, 3), 0 if kind == "black" else rng.integers(1, 256), np.uint8)
        jpeg = bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])
        png = bytes(cv2.imencode(".png", picture(jpeg))[1])
        pictures.append((f"{kind}/{at:05d}", png, labels[of]))
    pictures = [pictures[at] for at in rng.permutation(len(pictures))]
    samples = [
        Sample(key=key, members={"png": image_member(one, width, height)}, source=key, label=label)
        for key, one, label in pictures
    ]
    for split in ("planted", "curated"):
        folder = asked.out / split
        folder.mkdir(parents=True)
        parts = [samples[first : first + 256] for first in range(0, len(samples), 256)]
        records = [write_shard(folder / f"junk-{at:06d}.tar", some) for at, some in enumerate(parts)]
        names = tuple(manifest.info["label_names"])
        info = DatasetInfo(
            dataset="junk", split="train", modality="image", profile="image", label_names=names, settings={}
        )
        finish_split(folder, info, records, [])
    found = curate(asked.out / "curated", keep="contrast>0.02", copies=True)
    gone = found.measures.manifest.keys([int(found.measures.index[one.place]) for one in found.gone])
    for kind in ("black", "flat", "copy", "own"):
        of = sum(key.startswith(kind) for key, _, _ in pictures)
        print(f"{kind}: {sum(key.startswith(kind) for key in gone):,} of {of:,} go")
    print(found.counts)


if __name__ == "__main__":
    main()
