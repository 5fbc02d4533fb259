"""ModelNet40 as Princeton publishes it: 12,311 meshes of 40 categories.

Files below ROOT or ROOT/ModelNet40: CATEGORY/train/*.off and CATEGORY/test/*.off. The test folders are the split `val`.
The encoder samples points on the surfaces (encode/points/encoder.py). Any number of categories works, such as those of
ModelNet10.

Z. Wu et al., 3D ShapeNets, CVPR 2015.
"""

from __future__ import annotations

from pathlib import Path

from ...encode.points.encoder import PointEncoder
from ...source import Source
from ..dataset import Dataset, dataset_of, require_folder

OBTAIN = (
    "Get ModelNet40.zip from modelnet.cs.princeton.edu and unpack it, so that there is ROOT/ModelNet40/airplane/train/"
    "airplane_0001.off"
)
SPLITS = {"train": "train", "val": "test"}


def modelnet40(root: Path) -> Dataset:
    """The published splits. Raises DatasetError for another layout."""
    require_folder(root, name="modelnet40", obtain=OBTAIN)
    base = root / "ModelNet40" if (root / "ModelNet40").is_dir() else root
    label_names = sorted({path.parent.name for path in base.glob("*/train") if path.is_dir()})
    listed = {
        split: [
            Source(id=path.relative_to(base).as_posix(), path=path, label=number)
            for number, category in enumerate(label_names)
            for path in sorted((base / category / folder).glob("*.off"))
        ]
        for split, folder in SPLITS.items()
    }
    return dataset_of("modelnet40", label_names, listed, root=root, obtain=OBTAIN, encoder=PointEncoder())
