"""The layout with one folder per class."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePath

from ..source import Source
from .dataset import VIDEO_SUFFIXES, media_paths

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
    folders = {
        split: folder
        for split, names in SPLIT_FOLDERS.items()
        if (folder := next((root / name for name in names if (root / name).is_dir()), None)) is not None
    }
    folders = folders if "train" in folders else {"train": root}
    found = {
        split: [(path, path.relative_to(folder).parts[:-1]) for path in media_paths(folder, suffixes)]
        for split, folder in folders.items()
    }
    label_names = sorted({below[0] for files in found.values() for _, below in files if below})
    numbers = {name: number for number, name in enumerate(label_names)}
    listed = {
        split: [
            Source(id=_readable(path.relative_to(root)), path=path, label=numbers[below[0]] if below else -1)
            for path, below in files
        ]
        for split, files in found.items()
        if files
    }
    return tuple(label_names), listed


def _readable(path: PurePath) -> str:
    """The path as valid Unicode; bytes that are no UTF-8 are escaped."""
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
