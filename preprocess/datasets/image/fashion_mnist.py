"""Fashion-MNIST whole: 60,000 grey images of 28 x 28 pixels for training, 10,000 for validation, ten kinds of clothes.

It is downloaded as Debian's dataset-fashion-mnist (31 MB, MIT). A copy of the four *-ubyte.gz files may be put at
ROOT/dataset-fashion-mnist. The images are unpacked once, into ROOT/unpacked, so that each can be read by itself.

H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms, arXiv
1708.07747.
"""

from __future__ import annotations

import gzip
import os
import shutil
import zlib
from pathlib import Path

from ....shards.errors import DatasetError
from ...encode.image.encoder import ImageEncoder
from ...source import Source
from ..dataset import Dataset
from ..debian import debian_folder

NAME = "fashion-mnist"
PACKAGE, INSIDE = "dataset-fashion-mnist", "usr/share/datasets/fashion-mnist"
LABELS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
FILES = {"train": "train", "val": "t10k"}
"""How the names of a split's files begin."""


def fashion_mnist(root: Path) -> Dataset:
    """The splits of the publisher, downloaded into `root`. Raises DatasetError if the download fails."""
    folder = debian_folder(PACKAGE, INSIDE, root)
    splits = {}
    for split, prefix in FILES.items():
        images = _unpacked(folder / f"{prefix}-images-idx3-ubyte.gz", root / "unpacked")
        labels = _labels(folder / f"{prefix}-labels-idx1-ubyte.gz")
        splits[split] = [
            Source(id=f"{images.name}:{n}", path=images, label=label, window=(n, n + 1))
            for n, label in enumerate(labels)
        ]
    return Dataset(name=NAME, label_names=LABELS, splits=splits, encoder=ImageEncoder())


def _labels(path: Path) -> bytes:
    """The label of each image. Raises DatasetError if they are none of ten."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    labels = data[8:]
    if data[:4] != bytes((0, 0, 8, 1)) or int.from_bytes(data[4:8], "big") != len(labels):
        raise DatasetError(f"{NAME}: {path} is no IDX file of labels; remove it and run the command again")
    if max(labels, default=0) >= len(LABELS):
        raise DatasetError(f"{NAME}: {path} has the label {max(labels)}; legal are 0 to {len(LABELS) - 1}")
    return labels


def _unpacked(path: Path, folder: Path) -> Path:
    """The file without compression in `folder`, where it appears only when it is complete."""
    target = folder / path.stem
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{target.name}.{os.getpid()}"
    try:
        with gzip.open(path) as packed, partial.open("wb") as out:
            shutil.copyfileobj(packed, out)
        partial.replace(target)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def _unreadable(path: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"{NAME}: {path} cannot be unpacked ({error}); remove {path.parent} to download it again, or free disk space"
    )
