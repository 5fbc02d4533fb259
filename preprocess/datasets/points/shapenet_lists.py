"""ShapeNet as Point-BERT and Point-MAE read it: ShapeNet55, its 34 seen categories, and the parts of ShapeNetPart.

Files in ROOT, in a folder of it, or one further down:

    ShapeNet55-34/shapenet_pc/SYNSET-MODEL.npy       clouds of 8,192 points
    ShapeNet55-34/ShapeNet-55/{train,test}.txt       their names, a line each (ShapeNet-34/ for shapenet34)

    shapenetcore_partanno_segmentation_benchmark_v0_normal/
        synsetoffset2category.txt                    names and synsets of 16 categories
        train_test_split/shuffled_{train,val,test}_file_list.json
        SYNSET/MODEL.txt                             x, y, z, a normal and the number of a part in each line

Of ShapeNet55, test is the split `val`. ShapeNetPart's splits are the published three.

A. X. Chang et al., ShapeNet, 2015; L. Yi et al., SIGGRAPH Asia 2016; X. Yu et al., Point-BERT, CVPR 2022.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from maskstream.preprocess.datasets.dataset import Dataset, dataset_of, in_archives, require_folder
from maskstream.preprocess.encode.points.encoder import PointEncoder
from maskstream.preprocess.raw.lists import read_json, read_lines
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .shapenet import CATEGORIES

OBTAIN = (
    "Get ShapeNet55-34 as DATASET.md of github.com/Pang-Yatian/Point-MAE says, so that there are ROOT/ShapeNet55-34/"
    "ShapeNet-55/train.txt and ROOT/ShapeNet55-34/shapenet_pc/*.npy"
)
PART_OBTAIN = (
    "Get shapenetcore_partanno_segmentation_benchmark_v0_normal.zip and unpack it, so that there is ROOT/"
    "shapenetcore_partanno_segmentation_benchmark_v0_normal/synsetoffset2category.txt"
)
_PARTS_SPLITS = ("train", "val", "test")


@in_archives(".txt")
def shapenet55(root: Path, name: str = "shapenet55", lists: str = "ShapeNet-55") -> Dataset:
    """The clouds that the `lists` name. Raises DatasetError for another layout."""
    require_folder(root, name=name, obtain=OBTAIN)
    base = _folder_with(root, f"{lists}/train.txt", name, OBTAIN)
    names = {
        split: [line for _, line in read_lines(base / lists / f"{file}.txt")]
        for split, file in (("train", "train"), ("val", "test"))
    }
    synsets = sorted({line.partition("-")[0] for some in names.values() for line in some})
    numbers = {synset: number for number, synset in enumerate(synsets)}
    listed = {
        split: [
            Source(id=line, path=base / "shapenet_pc" / line, label=numbers[line.partition("-")[0]]) for line in some
        ]
        for split, some in names.items()
    }
    labels = [CATEGORIES.get(synset, synset) for synset in synsets]
    return dataset_of(name, labels, listed, root=root, obtain=OBTAIN, encoder=PointEncoder())


@in_archives(".json", ".txt")
def shapenetpart(root: Path) -> Dataset:
    """The published splits of the clouds with parts. Raises DatasetError for another layout."""
    name = "shapenetpart"
    require_folder(root, name=name, obtain=PART_OBTAIN)
    base = _folder_with(root, "synsetoffset2category.txt", name, PART_OBTAIN)
    synsets = {}
    for number, line in read_lines(base / "synsetoffset2category.txt"):
        category, _, synset = line.partition("\t")
        if not synset.strip().isdecimal():
            raise DatasetError(f"{name}: synsetoffset2category.txt has the line {number} {line!r}. {PART_OBTAIN}")
        synsets[synset.strip()] = category
    labels = sorted(synsets.values())
    listed: dict[str, list[Source]] = {}
    for split in _PARTS_SPLITS:
        path = base / "train_test_split" / f"shuffled_{split}_file_list.json"
        if not path.is_file():
            raise DatasetError(f"{name}: there is no {path}. {PART_OBTAIN}")
        listed[split] = [_part_cloud(base, path, entry, synsets, labels) for entry in read_json(path, PART_OBTAIN)]
    return dataset_of(name, labels, listed, root=root, obtain=PART_OBTAIN, encoder=PointEncoder())


def _part_cloud(base: Path, path: Path, entry: object, synsets: dict[str, str], labels: list[str]) -> Source:
    """The cloud of an entry such as shape_data/02691156/1a04e3eab45ca15dd86060f189eb133."""
    synset, model = (PurePosixPath(str(entry)).parts or ("", ""))[-2:]
    if synset not in synsets:
        raise DatasetError(f"shapenetpart: {path} has the entry {str(entry)[:80]!r} of no known synset. {PART_OBTAIN}")
    return Source(id=f"{synset}/{model}", path=base / synset / f"{model}.txt", label=labels.index(synsets[synset]))


def _folder_with(root: Path, name: str, dataset: str, obtain: str) -> Path:
    """ROOT, or the folder up to two below, that has a file."""
    for pattern in (name, f"*/{name}", f"*/*/{name}"):
        for path in sorted(root.glob(pattern)):
            return path.parents[len(PurePosixPath(name).parts) - 1]
    raise DatasetError(f"{dataset}: there is no {name} in {root} or up to two folders down. {obtain}")
