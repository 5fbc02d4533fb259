"""Any folder of files of one modality (default: videos), with one folder per class or with a list.

Without a list, the layout is ROOT/train/CLASS/... and ROOT/val/CLASS/... (and test), or ROOT/CLASS/..., which is all
train. A list is one csv file in ROOT with the columns `path` (relative to ROOT, or absolute), `label` (a name or a
number; none if it is empty or the column is missing) and `split` (train if it is empty or the column is missing).
"""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path

from ...shards.errors import DatasetError
from ..encode.encoder import Encoder
from ..encode.video.encoder import VideoEncoder
from ..source import Source
from .class_folders import SPLIT_FOLDERS, class_folders
from .dataset import VIDEO_SUFFIXES, Dataset, dataset_of, files_of, require_folder


def folder(
    root: Path, *, name: str = "folder", encoder: Encoder | None = None, suffixes: Collection[str] = VIDEO_SUFFIXES
) -> Dataset:
    """The splits of a folder of files with one of `suffixes`; `name` is the dataset's name, such as audio-folder.

    Raises DatasetError if there is no such file or the list does not have the format above.
    """
    encoder = encoder or VideoEncoder()
    modality = encoder.modality
    endings = "*.mp4" if modality == "video" else f"*{min(suffixes)}"
    obtain = (
        f"Lay the {files_of(modality)} out as ROOT/train/CLASS/{endings} and ROOT/val/CLASS/{endings}, or list them in "
        "ROOT/list.csv (path,label,split)"
    )
    require_folder(root, name=name, obtain=obtain)
    lists = sorted(root.glob("*.csv"))
    if len(lists) > 1:
        raise DatasetError(f"{name}: {root} holds several csv files ({', '.join(p.name for p in lists)}); keep one")
    label_names, listed = _listed(lists[0], root, name, obtain) if lists else class_folders(root, suffixes)
    if not listed:
        raise DatasetError(f"{name}: {root}{f' lists no {modality}' if lists else f' holds no {modality}'}. {obtain}")
    return dataset_of(name, label_names, listed, root=root, obtain=obtain, encoder=encoder)


def _listed(path: Path, root: Path, dataset: str, obtain: str) -> tuple[tuple[str, ...], dict[str, list[Source]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if "path" not in (reader.fieldnames or ()):
            raise DatasetError(f"{dataset}: {path} has the columns {reader.fieldnames}, but no 'path'. {obtain}")
        rows = [(row["path"], row.get("label") or "", row.get("split") or "train") for row in reader]
    label_names = _label_names({label for _, label, _ in rows if label})
    numbers = {name: number for number, name in enumerate(label_names)}
    listed: dict[str, list[Source]] = {}
    for file_name, label, split in rows:
        name = next((name for name, others in SPLIT_FOLDERS.items() if split in others), None)
        if name is None:
            raise DatasetError(f"{dataset}: {path} has the split {split!r}; use one of {', '.join(SPLIT_FOLDERS)}")
        listed.setdefault(name, []).append(Source(id=file_name, path=root / file_name, label=numbers.get(label, -1)))
    return label_names, listed


def _label_names(found: set[str]) -> tuple[str, ...]:
    """The sorted names; if all labels are numbers, the numbers 0 to the largest, so that each keeps its value."""
    if found and all(label.isdecimal() for label in found):
        return tuple(str(number) for number in range(max(map(int, found)) + 1))
    return tuple(sorted(found))
