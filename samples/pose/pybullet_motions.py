"""Motion capture of 20 actions in PyBullet's package: flips, a crawl, dances, kicks, runs, walks, 40 seconds in all.

The wheel has 103 MB (zlib licence), of which its motions are kept; that of one platform is taken, for the motions are
the same in all. Labels are of names, and motions that share poses share a split: all walks and turns do.
"""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.pose.encoder import FORMAT, PoseEncoder
from maskstream.preprocess.encode.pose.motion import Motion
from maskstream.preprocess.source import Source
from maskstream.samples.packages import Package, fetch_folder

from .actions import LABELS, label_of
from .deepmimic import read_deepmimic
from .held_out_motions import held_out_motions

PYBULLET = Package(
    name="pybullet",
    version="3.2.7",
    sha256="5d858abf7c12a21ef3ed351cf81dac1b5e486ec25c9ab59bfc84beb89034edff",
    wheel_of=("311", "manylinux_2_17_x86_64"),
)
INSIDE = "pybullet_data/data/motions"


def pybullet_motions(root: Path) -> Dataset:
    """The splits, downloaded into `root`. Raises DatasetError if the download fails."""
    encoder = PoseEncoder()
    splits = held_out_motions(pybullet_sources(root), encoder)
    return Dataset(name="pybullet-motions", label_names=LABELS, splits=splits, encoder=encoder)


def pybullet_sources(root: Path) -> list[Source]:
    """The motions of people, downloaded into `root`; those of other bodies are left out."""
    folder = fetch_folder(PYBULLET, INSIDE, root)
    paths = [*sorted(folder.glob("humanoid3d_*.txt")), *sorted(folder.glob("walker/*.txt"))]
    return [
        Source(
            id=f"pybullet/{path.stem}",
            path=path,
            label=label_of(path.stem.lstrip("0")),
            meta={FORMAT: "deepmimic"},
            made_by=read,
        )
        for path in paths
    ]


def read(source: Source) -> Motion:
    """The motion of a source."""
    return read_deepmimic(source.path)
