"""The complete Fashion-MNIST: 60,000 grey images of 28 x 28 pixels for training, 10,000 for validation, ten kinds of
clothes.

It is downloaded as Debian's dataset-fashion-mnist (31 MB, MIT) or, without apt, from its publisher, and compared with
known checksums. A copy of the four *-ubyte.gz files may be put at ROOT/dataset-fashion-mnist. The images are unpacked
once, into ROOT/unpacked, so that each can be read separately.

H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms, arXiv
1708.07747.
"""

import gzip
import hashlib
import io
import os
import shutil
import tempfile
import zlib
from pathlib import Path
from urllib.request import urlopen

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.source import Source
from maskstream.samples.debian import fetch_debian_folder
from maskstream.shards.errors import DatasetError

NAME = "fashion-mnist"
PACKAGE, INSIDE = "dataset-fashion-mnist", "usr/share/datasets/fashion-mnist"
LABELS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
FILES = {"train": "train", "val": "t10k"}
"""First words of the names of a split's files."""
PUBLISHED = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""Checksums of the unpacked contents of the publisher's files, because Debian compresses them again. The publisher does
not offer https.
"""
LARGEST = 1 << 26
"""Maximum bytes that are read of an answer, and unpacked from it, before its checksum is known."""
TIMEOUT_S = 60


def fashion_mnist(root: Path) -> Dataset:
    """Read the publisher's splits, downloaded into `root`. Raises DatasetError if the download fails."""
    folder = _folder(root)
    splits = {}
    for split, prefix in FILES.items():
        images = _unpacked(folder / f"{prefix}-images-idx3-ubyte.gz", root / "unpacked")
        labels = _labels(folder / f"{prefix}-labels-idx1-ubyte.gz")
        splits[split] = [
            Source(id=f"{images.name}:{n}", path=images, label=label, window=(n, n + 1))
            for n, label in enumerate(labels)
        ]
    return Dataset(name=NAME, label_names=LABELS, splits=splits, encoder=ImageEncoder())


def _folder(root: Path) -> Path:
    """Return the folder of the four files below `root`, downloaded if it is missing."""
    kept = root / PACKAGE
    if kept.is_dir() or shutil.which("apt-get"):
        return fetch_debian_folder(PACKAGE, INSIDE, root)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as download:
        folder = Path(download) / PACKAGE
        folder.mkdir()
        for name, expected in SHA256.items():
            try:
                with urlopen(f"{PUBLISHED}/{name}", timeout=TIMEOUT_S) as answer:
                    packed = answer.read(LARGEST)
                with gzip.open(io.BytesIO(packed)) as unpacked:
                    got = hashlib.sha256(unpacked.read(LARGEST)).hexdigest()
            except (OSError, EOFError, zlib.error) as error:
                raise DatasetError(
                    f"{NAME}: {PUBLISHED}/{name} could not be downloaded ({error}). Check the network, or put the four "
                    f"files ({', '.join(SHA256)}) at {kept}, and run the command again"
                ) from error
            if got != expected:
                raise DatasetError(f"{NAME}: {PUBLISHED}/{name} contains data with sha256 {got}, expected {expected}")
            (folder / name).write_bytes(packed)
        folder.rename(kept)
    return kept


def _labels(path: Path) -> bytes:
    """Return the label of each image. Raises DatasetError if a label is not one of ten."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise _make_unreadable_error(path, error) from error
    labels = data[8:]
    if data[:4] != bytes((0, 0, 8, 1)) or int.from_bytes(data[4:8], "big") != len(labels):
        raise DatasetError(f"{NAME}: {path} is not an IDX file of labels; remove it and run the command again")
    if max(labels, default=0) >= len(LABELS):
        raise DatasetError(f"{NAME}: {path} has the label {max(labels)}; expected 0 to {len(LABELS) - 1}")
    return labels


def _unpacked(path: Path, folder: Path) -> Path:
    """Unpack the file into `folder`, where it appears only when it is complete."""
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
        raise _make_unreadable_error(path, error) from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def _make_unreadable_error(path: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"{NAME}: {path} cannot be unpacked ({error}); remove {path.parent} to download it again, or free disk space"
    )
