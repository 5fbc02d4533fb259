"""The layout with one folder per class."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePath

from ...shards.errors import DatasetError
from ..source import Source
from .dataset import VIDEO_SUFFIXES
from .folders import distinct_folders, media_below, readable

SPLIT_FOLDERS: Mapping[str, Sequence[str]] = {
    "train": ("train", "training", "videos_train"),
    "val": ("val", "valid", "validate", "validation", "videos_val"),
    "test": ("test", "testing", "videos_test"),
}
"""The names of the folders that hold a split."""


def class_folders(
    root: Path, suffixes: Collection[str] = VIDEO_SUFFIXES
) -> tuple[tuple[str, ...], dict[str, list[Source]]]:
    """The sorted label names, and the sources of each split that has files.

    The splits are the folders of `SPLIT_FOLDERS` that exist; without a train folder, all of `root` is train. A file's
    label is the first folder below the split; a file in no such folder has the label -1. Only files with one of
    `suffixes` count.
    """
    folders = split_folders(root)
    folders = folders if "train" in folders else {"train": root}
    paths = media_below(list(folders.values()), suffixes)
    found = {
        split: [(path, _label(path.relative_to(folder))) for path in files]
        for (split, folder), files in zip(folders.items(), paths, strict=True)
    }
    label_names = sorted({label for files in found.values() for _, label in files if label is not None})
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(label_names)}
    listed = {
        split: [
            Source(id=readable(path.relative_to(root)), path=path, label=numbers.get(label, -1))
            for path, label in files
        ]
        for split, files in found.items()
        if files
    }
    return tuple(label_names), listed


def _label(below: PurePath) -> str | None:
    """The first folder of a path below a split; None if there is none."""
    return readable(PurePath(below.parts[0])) if len(below.parts) > 1 else None


def split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split that has one. Raises DatasetError if a link makes two splits the same folder."""
    found = {
        split: folder
        for split, names in SPLIT_FOLDERS.items()
        if (folder := next((root / name for name in names if (root / name).is_dir()), None)) is not None
    }
    if len(distinct_folders(found.values())) < len(found):
        raise DatasetError(
            f"two of {', '.join(map(str, found.values()))} are the same folder, so a model would be validated on its "
            "training data; take the link away"
        )
    return found
