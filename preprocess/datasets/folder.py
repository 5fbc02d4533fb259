"""Any folder of videos: one folder per class, or a list.

Without a list: ROOT/train/CLASS/... and ROOT/val/CLASS/... (and test), or ROOT/CLASS/..., all of which is then train.
With one csv file in ROOT: the columns `path` (relative to ROOT, or absolute), `label` (a name or a number; empty or
without the column: none), and `split` (empty or without the column: train).
"""

from __future__ import annotations

import csv
from pathlib import Path

from ...shards.errors import DatasetError
from .class_folders import SPLIT_FOLDERS, class_folders
from .dataset import Dataset, Source, dataset_of, require_folder

OBTAIN = (
    "Lay the videos out as ROOT/train/CLASS/*.mp4 and ROOT/val/CLASS/*.mp4, or list them in ROOT/videos.csv "
    "(path,label,split)"
)


def folder(root: Path) -> Dataset:
    """The splits of a folder of videos; DatasetError where there is no video, or the list is not as above."""
    require_folder(root, name="folder", obtain=OBTAIN)
    lists = sorted(root.glob("*.csv"))
    if len(lists) > 1:
        raise DatasetError(f"folder: {root} holds several csv files ({', '.join(p.name for p in lists)}); keep one")
    label_names, listed = _listed(lists[0], root) if lists else class_folders(root)
    if not listed:
        raise DatasetError(f"folder: there is no video in {root}{' by its csv file' if lists else ''}. {OBTAIN}")
    return dataset_of("folder", label_names, listed, root=root, obtain=OBTAIN)


def _listed(path: Path, root: Path) -> tuple[tuple[str, ...], dict[str, list[Source]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if "path" not in (reader.fieldnames or ()):
            raise DatasetError(f"folder: {path} has the columns {reader.fieldnames}, but no 'path'. {OBTAIN}")
        rows = [(row["path"], row.get("label") or "", row.get("split") or "train") for row in reader]
    label_names = _label_names({label for _, label, _ in rows if label})
    numbers = {name: number for number, name in enumerate(label_names)}
    listed: dict[str, list[Source]] = {}
    for file_name, label, split in rows:
        name = next((name for name, others in SPLIT_FOLDERS.items() if split in others), None)
        if name is None:
            raise DatasetError(f"folder: {path} has the split {split!r}; it is one of {', '.join(SPLIT_FOLDERS)}")
        listed.setdefault(name, []).append(Source(id=file_name, path=root / file_name, label=numbers.get(label, -1)))
    return label_names, listed


def _label_names(found: set[str]) -> tuple[str, ...]:
    """Names sorted; numbers stay the numbers that they are."""
    if found and all(label.isdecimal() for label in found):
        return tuple(str(number) for number in range(max(map(int, found)) + 1))
    return tuple(sorted(found))
