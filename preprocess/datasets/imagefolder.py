"""The layout of ImageNet and of torchvision's ImageFolder: SPLIT/CLASS/... below ROOT.

`train` is needed, `val` (or `valid`, `validation`) and `test` are taken where they are there. Every picture lies in the
folder of its class, and a class is numbered by its place in the sorted names of `train`, as ImageFolder numbers it; so
a class that only another split has is an error. ImageNet's validation pictures are published in one folder; the usual
script that moves them into class folders makes this layout.

Deng et al., ImageNet: A Large-Scale Hierarchical Image Database, CVPR 2009.
"""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.encode.image.picture import IMAGE_SUFFIXES
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import Dataset, dataset_of, in_archives, require_folder
from .folders import media_below, readable, split_folders

NAME = "imagefolder"
OBTAIN = "Lay the pictures out as ROOT/train/CLASS/*.jpg and ROOT/val/CLASS/*.jpg, such as ROOT/train/n01440764/*.JPEG"


@in_archives()
def imagefolder(root: Path) -> Dataset:
    """The splits that are there; DatasetError for another layout."""
    require_folder(root, name=NAME, obtain=OBTAIN)
    folders = split_folders(root)
    if "train" not in folders:
        raise DatasetError(f"{NAME}: there is no folder train in {root}. {OBTAIN}")
    label_names = _classes(folders["train"])
    if not label_names:
        raise DatasetError(f"{NAME}: {folders['train']} holds no folders of classes. {OBTAIN}")
    numbers = {name: number for number, name in enumerate(label_names)}
    for folder in folders.values():
        if strange := [name for name in _classes(folder) if name not in numbers]:
            raise DatasetError(
                f"{NAME}: {folder} holds {len(strange)} classes that train has not, such as {strange[0]!r}; its "
                f"classes are those of train. {OBTAIN}"
            )
    places = [(split, name) for split, folder in folders.items() for name in _classes(folder)]
    found = media_below([folders[split] / name for split, name in places], IMAGE_SUFFIXES)
    listed: dict[str, list[Source]] = {split: [] for split in folders}
    for (split, name), paths in zip(places, found, strict=True):
        listed[split] += [Source(id=readable(path.relative_to(root)), path=path, label=numbers[name]) for path in paths]
    names = [readable(Path(name)) for name in label_names]
    return dataset_of(NAME, names, listed, root=root, obtain=OBTAIN, encoder=ImageEncoder())


def _classes(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
