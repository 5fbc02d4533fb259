"""A dataset of pictures some of which do harm to the process that encodes them: their names say which."""

import ctypes
import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from maskstream.preprocess.datasets import DATASETS
from maskstream.preprocess.encode.image.encoder import ImageEncoder


def grow():
    """Take 1.5 GB, and keep it."""
    kept = np.ones(15 * 10**8, np.uint8)
    time.sleep(100)
    return kept


FAULTS = {
    "segfault": lambda: ctypes.string_at(0),
    "hang": lambda: time.sleep(1000),
    "grow": grow,
    "slow": lambda: time.sleep(0.5),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PoisonedEncoder(ImageEncoder):
    """Encodes a picture after what the first word of its name says."""

    def encode(self, source):
        FAULTS.get(Path(source.id).stem.partition("-")[0], int)()
        return ImageEncoder.encode(self, source)


def poisoned(root):
    """The pictures below `root`."""
    return replace(DATASETS["image-folder"](root), encoder=PoisonedEncoder())


def write_pictures(root, names):
    """Small pictures of these names, in folders of two classes."""
    for number, name in enumerate(names):
        path = root / "ab"[number % 2] / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = np.random.default_rng(number).integers(0, 256, (40 + number, 60, 3), dtype=np.uint8)
        cv2.imwrite(str(path), picture)
