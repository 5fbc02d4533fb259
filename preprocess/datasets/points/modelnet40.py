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
from ..folders import distinct_folders, readable

OBTAIN = (
    "Get ModelNet40.zip from modelnet.cs.princeton.edu and unpack it, so that there is ROOT/ModelNet40/airplane/train/"
    "airplane_0001.off"
)
SPLITS = {"train": "train", "val": "test"}


def modelnet40(root: Path) -> Dataset:
    """The published splits. Raises DatasetError for another layout."""
    require_folder(root, name="modelnet40", obtain=OBTAIN)
    base = root / "ModelNet40" if (root / "ModelNet40").is_dir() else root
    label_names = [path.name for path in distinct_folders(path.parent for path in base.glob("*/train"))]
    folders = set(distinct_folders(base / category / name for category in label_names for name in SPLITS.values()))
    listed = {
        split: [
            Source(id=readable(path.relative_to(base)), path=path, label=number)
            for number, category in enumerate(label_names)
            if base / category / folder in folders
            for path in sorted((base / category / folder).glob("*.off"))
        ]
        for split, folder in SPLITS.items()
    }
    return dataset_of("modelnet40", label_names, listed, root=root, obtain=OBTAIN, encoder=PointEncoder())
