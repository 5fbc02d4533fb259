"""Moving Fashion-MNIST: clips of a garment that moves and bounces, drawn while the shards are written.

They are made as Moving MNIST is, of the images that the dataset `fashion-mnist` downloads (31 MB, MIT): 20 frames of
64 x 64 pixels, ten a second, with one garment of 28 x 28 on a ground of smooth colours (`MovingPictureEncoder`). The
label is the garment. `train` has images of the publisher's training set only, `val` of the test set only.
"""

from dataclasses import replace
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.samples.image.fashion_mnist import fashion_mnist
from maskstream.shards.errors import DatasetError

from .moving_picture import MovingPictureEncoder

NAME = "moving-fashion-mnist"


def moving_fashion_mnist(root: Path, *, clips: int = 2000) -> Dataset:
    """The splits, of images downloaded into `root`: `clips` for training and half as many for validation, one of each
    of the first images. Raises DatasetError if the download fails.
    """
    if clips < 2:
        raise DatasetError(f"{NAME}: clips={clips} must be at least 2")
    still = fashion_mnist(root)
    counts = {"train": clips, "val": clips // 2}
    splits = {split: sources[: counts[split]] for split, sources in still.splits.items()}
    return replace(still, name=NAME, splits=splits, encoder=MovingPictureEncoder())
