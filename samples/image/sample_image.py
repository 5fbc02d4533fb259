"""Real images, a set small enough for trying out everything: seventeen photographs and scans from two published
packages.

A photograph is cut into windows of 128 x 128 pixels, some 50 each. Windows of one photograph overlap and look similar,
so whole photographs are held out: no window of the split val comes from a photograph of the split train. Each of the
six labels has photographs in both.

Packages and their licences: scikit-image (BSD-3), imgaug (MIT). The first has a wheel for each platform with the same
images, so one of them is downloaded.
"""

from dataclasses import dataclass
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.source import Source
from maskstream.samples.packages import Package, fetch

SCIKIT_IMAGE = Package(
    name="scikit-image",
    version="0.26.0",
    sha256="74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    wheel_of=("311", "manylinux_2_24_x86_64"),
)
IMGAUG = Package(
    name="imgaug", version="0.4.0", sha256="ce61e65b4eb7405fc62c1b0a79d2fa92fd47f763aaecb65152d29243592111f9"
)

WINDOW = 128
WINDOWS = 50
"""Approximate maximum number of windows of a photograph."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Photograph:
    """One file of a package: its path in the wheel, its size in pixels, its label and split."""

    package: Package = SCIKIT_IMAGE
    member: str
    width: int
    height: int
    label: str
    split: str = "train"


PHOTOGRAPHS = (
    Photograph(package=IMGAUG, member="imgaug/quokka.jpg", width=960, height=643, label="animal"),
    Photograph(member="skimage/data/chelsea.png", width=451, height=300, label="animal", split="val"),
    Photograph(member="skimage/data/astronaut.png", width=512, height=512, label="person"),
    Photograph(member="skimage/data/camera.png", width=512, height=512, label="person", split="val"),
    Photograph(member="skimage/data/grass.png", width=512, height=512, label="ground"),
    Photograph(member="skimage/data/gravel.png", width=512, height=512, label="ground"),
    Photograph(member="skimage/data/brick.png", width=512, height=512, label="ground", split="val"),
    Photograph(member="skimage/data/hubble_deep_field.jpg", width=1000, height=872, label="space"),
    Photograph(member="skimage/data/rocket.jpg", width=640, height=427, label="space"),
    Photograph(member="skimage/data/moon.png", width=512, height=512, label="space", split="val"),
    Photograph(member="skimage/data/retina.jpg", width=1411, height=1411, label="medicine"),
    Photograph(member="skimage/data/ihc.png", width=512, height=512, label="medicine", split="val"),
    Photograph(member="skimage/data/cell.png", width=550, height=660, label="medicine"),
    Photograph(member="skimage/data/motorcycle_left.png", width=741, height=500, label="thing"),
    Photograph(member="skimage/data/coffee.png", width=600, height=400, label="thing", split="val"),
    Photograph(member="skimage/data/clock_motion.png", width=400, height=300, label="thing"),
    Photograph(member="skimage/data/coins.png", width=384, height=303, label="thing"),
)


def windows(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """Return x, y, width and height of a photograph's windows, on a regular grid over all of it: about `WINDOWS` of
    them, fewer where they would lie closer than half a window.
    """
    step = max(WINDOW // 2, round(((width - WINDOW) * (height - WINDOW) / WINDOWS) ** 0.5))
    columns, rows = (range(0, side - WINDOW + 1, step) for side in (width, height))
    return [(x, y, WINDOW, WINDOW) for y in rows for x in columns]


def sample_image(root: Path) -> Dataset:
    """Read the sample set, downloaded into `root`; raise DatasetError if that is not possible."""
    root.mkdir(parents=True, exist_ok=True)
    label_names = tuple(dict.fromkeys(photograph.label for photograph in PHOTOGRAPHS))
    paths: dict[str, Path] = {}
    for package in (SCIKIT_IMAGE, IMGAUG):
        paths |= fetch(package, tuple(p.member for p in PHOTOGRAPHS if p.package is package), root)
    splits: dict[str, list[Source]] = {"train": [], "val": []}
    for photograph in PHOTOGRAPHS:
        path = paths[photograph.member]
        for x, y, width, height in windows(photograph.width, photograph.height):
            source = Source(
                id=f"{photograph.package.folder}/{path.name}:{x},{y}",
                path=path,
                label=label_names.index(photograph.label),
                meta={"crop": [x, y, width, height]},
            )
            splits[photograph.split].append(source)
    return Dataset(name="sample-image", label_names=label_names, splits=splits, encoder=ImageEncoder())
