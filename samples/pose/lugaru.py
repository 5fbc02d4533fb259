"""Motions of the game Lugaru: some 108 fights, flips, falls and runs of hand-made key poses, one minute in all.

They are downloaded as Debian's lugaru-data (34 MB, CC-BY-SA-3.0). A copy of its folder Animations may be put at
ROOT/lugaru-data. Between the few key poses of a motion poses are interpolated (preprocess/encode/pose/encoder.py).
Labels are of names, and motions that share poses share a split.
"""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.pose.encoder import FORMAT, PoseEncoder
from maskstream.preprocess.encode.pose.motion import Motion
from maskstream.preprocess.source import Source
from maskstream.samples.debian import debian_folder
from maskstream.shards.errors import DatasetError

from .actions import LABELS, label_of
from .held_out_motions import held_out_motions
from .lugaru_files import read_lugaru

PACKAGE, INSIDE = "lugaru-data", "usr/share/games/lugaru/Animations"
_LEFT_OUT = {"Tempanim"}
"""A single pose."""


def lugaru(root: Path) -> Dataset:
    """The splits, downloaded into `root`. Raises DatasetError if the download fails."""
    encoder = PoseEncoder()
    splits = held_out_motions(lugaru_sources(root), encoder)
    return Dataset(name="lugaru", label_names=LABELS, splits=splits, encoder=encoder)


def lugaru_sources(root: Path) -> list[Source]:
    """The motions, downloaded into `root`."""
    folder = debian_folder(PACKAGE, INSIDE, root)
    paths = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in _LEFT_OUT)
    if not paths:
        raise DatasetError(f"lugaru: {folder} holds no motions; remove it to download it again")
    meta = {FORMAT: "lugaru"}
    return [
        Source(id=f"lugaru/{path.name}", path=path, label=label_of(path.name), meta=meta, made_by=read)
        for path in paths
    ]


def read(source: Source) -> Motion:
    """The key poses of a source."""
    return read_lugaru(source.path)
