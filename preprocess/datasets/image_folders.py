"""Folders of pictures, alone or with texts, in usual layouts."""

from pathlib import Path
from typing import Any

from maskstream.preprocess.encode.image.encoder import IMAGE_SUFFIXES, ImageEncoder
from maskstream.preprocess.encode.image_text.encoder import ImageTextEncoder
from maskstream.preprocess.raw.lists import read_json
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError, OutageError
from maskstream.shards.format.sample import Reject

from .dataset import Dataset, dataset_of, in_archives, require_folder
from .folders import media_below, readable, split_folders

IMAGEFOLDER = "imagefolder"
IMAGEFOLDER_OBTAIN = (
    "Lay the pictures out as ROOT/train/CLASS/*.jpg and ROOT/val/CLASS/*.jpg, such as ROOT/train/n01440764/*.JPEG"
)


@in_archives()
def imagefolder(root: Path) -> Dataset:
    """The layout of ImageNet and of torchvision's ImageFolder: SPLIT/CLASS/... below ROOT.

    `train` is needed, `val` (or `valid`, `validation`) and `test` are taken where they are there. Every picture lies in
    the folder of its class, and a class is numbered by its place in the sorted names of `train`, as ImageFolder numbers
    it; so a class that only another split has is an error. ImageNet's validation pictures are published in one folder;
    the usual script that moves them into class folders makes this layout.

    Deng et al., ImageNet: A Large-Scale Hierarchical Image Database, CVPR 2009.

    The splits that are there; DatasetError for another layout.
    """
    require_folder(root, name=IMAGEFOLDER, obtain=IMAGEFOLDER_OBTAIN)
    folders = split_folders(root)
    if "train" not in folders:
        raise DatasetError(f"{IMAGEFOLDER}: there is no folder train in {root}. {IMAGEFOLDER_OBTAIN}")
    label_names = _classes(folders["train"])
    if not label_names:
        raise DatasetError(f"{IMAGEFOLDER}: {folders['train']} holds no folders of classes. {IMAGEFOLDER_OBTAIN}")
    numbers = {name: number for number, name in enumerate(label_names)}
    for folder in folders.values():
        if strange := [name for name in _classes(folder) if name not in numbers]:
            raise DatasetError(
                f"{IMAGEFOLDER}: {folder} holds {len(strange)} classes that train has not, such as {strange[0]!r}; its "
                f"classes are those of train. {IMAGEFOLDER_OBTAIN}"
            )
    places = [(split, name) for split, folder in folders.items() for name in _classes(folder)]
    found = media_below([folders[split] / name for split, name in places], IMAGE_SUFFIXES)
    listed: dict[str, list[Source]] = {split: [] for split in folders}
    for (split, name), paths in zip(places, found, strict=True):
        listed[split] += [Source(id=readable(path.relative_to(root)), path=path, label=numbers[name]) for path in paths]
    names = [readable(Path(name)) for name in label_names]
    return dataset_of(IMAGEFOLDER, names, listed, root=root, obtain=IMAGEFOLDER_OBTAIN, encoder=ImageEncoder())


def _classes(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


IMAGE_TEXT_FOLDER = "image-text-folder"
IMAGE_TEXT_OBTAIN = (
    "Lay the pictures out with a text file of the same name each, as ROOT/train/0001.jpg and ROOT/train/0001.txt, or "
    "put the tars of img2dataset there, as ROOT/00000.tar"
)


@in_archives(".json", ".txt")
def image_text_folder(root: Path) -> Dataset:
    """Pictures that have a text file of the same name, as img2dataset and others write them: in folders or in tars.

        ROOT/00000.tar ...                with KEY.jpg, KEY.txt and KEY.json for each picture (WebDataset); not unpacked
        ROOT/train/**/KEY.jpg, KEY.txt    or any folders; val and test in the same way, and without train all is train

    The text is the caption. KEY.json, if it is there, is an object whose texts, numbers and truth values go into the
    sample's `json`; its `caption` counts where there is no text file. A picture without either is a reject.

    The splits of pictures with texts. Raises DatasetError if there are none.
    """
    require_folder(root, name=IMAGE_TEXT_FOLDER, obtain=IMAGE_TEXT_OBTAIN)
    folders = split_folders(root)
    folders = folders if "train" in folders else {"train": root}
    splits: dict[str, list[Source]] = {}
    missing: dict[str, list[Reject]] = {}
    for split, paths in zip(folders, media_below(list(folders.values()), IMAGE_SUFFIXES), strict=True):
        for path in paths:
            name, about = readable(path.relative_to(root)), _about(path)
            if "caption" in about:
                splits.setdefault(split, []).append(Source(id=name, path=path, meta=about))
            else:
                missing.setdefault(split, []).append(Reject(source=name, stage="missing", reason="has no text"))
    if not splits:
        raise DatasetError(
            f"{IMAGE_TEXT_FOLDER}: {root} holds no pictures with a text file of the same name. {IMAGE_TEXT_OBTAIN}"
        )
    return Dataset(name=IMAGE_TEXT_FOLDER, label_names=(), splits=splits, missing=missing, encoder=ImageTextEncoder())


def _about(path: Path) -> dict[str, Any]:
    """What the files beside a picture say: the caption, and more."""
    beside, text = path.with_suffix(".json"), path.with_suffix(".txt")
    try:
        found = read_json(beside, IMAGE_TEXT_OBTAIN) if beside.is_file() else {}
        about = {key: value for key, value in found.items() if isinstance(value, str | int | float)}
        if text.is_file():
            about["caption"] = text.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise OutageError(f"{text} cannot be read ({error.strerror}); run the same command again") from error
    except AttributeError as error:
        raise DatasetError(f"{beside} holds no object, but a {type(found).__name__}. {IMAGE_TEXT_OBTAIN}") from error
    caption = about.pop("caption", None)
    return {**about, "caption": " ".join(caption.split())} if isinstance(caption, str) and caption.strip() else about
