"""ModelNet40 in one of three forms: Princeton's 12,311 meshes of 40 categories, or clouds made of them.

Files below ROOT, or below a folder in it:

    ModelNet40/CATEGORY/{train,test}/*.off           Princeton: meshes, on which points are sampled
    ModelNet40.PC15k/CATEGORY/{train,test}/*.npy     clouds of 15,000 points in their published (random) order
    modelnet40_normal_resampled/CATEGORY/*.txt       PointNet++: x, y, z and a normal a line; the splits are those of
                                                     modelnet40_train.txt and modelnet40_test.txt

Test is the split `val`. Any number of categories works, such as those of ModelNet10.

Z. Wu et al., 3D ShapeNets, CVPR 2015; C. R. Qi et al., PointNet++, NeurIPS 2017.
"""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.encode.points.encoder import PUBLISHED_ORDER, PointEncoder
from maskstream.preprocess.raw.lists import read_lines
from maskstream.preprocess.source import Source

from .dataset import Dataset, dataset_of, in_archives, require_folder
from .folders import distinct_folders, readable

OBTAIN = (
    "Get ModelNet40.zip from modelnet.cs.princeton.edu and unpack it, so that there is ROOT/ModelNet40/airplane/train/"
    "airplane_0001.off; or modelnet40_normal_resampled.zip, so that there is ROOT/modelnet40_normal_resampled/"
    "modelnet40_train.txt"
)
SPLITS = {"train": "train", "val": "test"}
FOLDERS = ("ModelNet40", "ModelNet40.PC15k", "modelnet40_normal_resampled", "modelnet40")
_LISTS = ("modelnet40_train.txt", "modelnet10_train.txt")


@in_archives(".txt")
def modelnet40(root: Path) -> Dataset:
    """The published splits. Raises DatasetError for another layout."""
    require_folder(root, name="modelnet40", obtain=OBTAIN)
    base = next((root / name for name in FOLDERS if (root / name).is_dir()), root)
    train = next((base / name for name in _LISTS if (base / name).is_file()), None)
    label_names, listed = _in_folders(base) if train is None else _in_lists(base, train)
    return dataset_of("modelnet40", label_names, listed, root=root, obtain=OBTAIN, encoder=PointEncoder())


def _in_folders(base: Path) -> tuple[list[str], dict[str, list[Source]]]:
    label_names = [path.name for path in distinct_folders(path.parent for path in base.glob("*/train"))]
    folders = set(distinct_folders(base / category / name for category in label_names for name in SPLITS.values()))
    suffix, meta = (".off", {}) if any(base.glob("*/train/*.off")) else (".npy", {"rows": PUBLISHED_ORDER})
    return label_names, {
        split: [
            Source(id=readable(path.relative_to(base)), path=path, label=number, meta=meta)
            for number, category in enumerate(label_names)
            if base / category / folder in folders
            for path in sorted((base / category / folder).glob(f"*{suffix}"))
        ]
        for split, folder in SPLITS.items()
    }


def _in_lists(base: Path, train: Path) -> tuple[list[str], dict[str, list[Source]]]:
    """The clouds that lists name as CATEGORY_NUMBER."""
    lists = {"train": train, "val": train.with_name(train.name.replace("train", "test"))}
    names = {split: [name for _, name in read_lines(path)] for split, path in lists.items()}
    label_names = sorted({name.rpartition("_")[0] for some in names.values() for name in some})
    return label_names, {
        split: [_cloud(base, name, label_names.index(name.rpartition("_")[0])) for name in some]
        for split, some in names.items()
    }


def _cloud(base: Path, name: str, label: int) -> Source:
    path = base / name.rpartition("_")[0] / f"{name}.txt"
    return Source(id=readable(path.relative_to(base)), path=path, label=label)
