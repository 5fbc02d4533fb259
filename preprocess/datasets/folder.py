"""Any folder of files of one modality (default: videos), with one folder per class or with a list.

Without a list, the layout is ROOT/train/CLASS/... and ROOT/val/CLASS/... (and test), or ROOT/CLASS/..., which is all
train. A list is one csv file in ROOT with the columns `path` (relative to ROOT, or absolute and below it), `label` (a
name or a number; none if it is empty or the column is missing) and `split` (train if it is empty or the column is
missing).
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from maskstream.preprocess.encode.encoder import Encoder
from maskstream.preprocess.encode.video.encoder import VideoEncoder
from maskstream.preprocess.raw.lists import TableRow, read_table, whole_number
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .class_folders import SPLIT_FOLDERS, class_folders
from .dataset import VIDEO_SUFFIXES, Dataset, dataset_of, files_of, in_archives, require_folder


@in_archives(".csv")
def folder(
    root: Path,
    labelled: bool = True,
    *,
    name: str = "folder",
    encoder: Encoder | None = None,
    suffixes: Collection[str] = VIDEO_SUFFIXES,
) -> Dataset:
    """The splits of a folder of files with one of `suffixes`; `name` is the dataset's name, such as audio-folder. Files
    without labels are a doubt if they should be `labelled`, and no list leaves the labels out.

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
    lists = sorted(path for path in root.glob("*.csv") if path.is_file())
    if len(lists) > 1:
        raise DatasetError(
            f"{name}: {root} holds several csv files ({', '.join(p.name for p in lists)}), and one is read; "
            "put their rows into one file with the columns path, label and split"
        )
    label_names, listed, doubt = (
        (*_listed(lists[0], root, name, obtain), "") if lists else class_folders(root, suffixes)
    )
    if not listed:
        raise DatasetError(f"{name}: {root}{f' lists no {modality}' if lists else f' holds no {modality}'}. {obtain}")
    labelled = labelled and (not lists or bool(label_names))
    return dataset_of(
        name, label_names, listed, root=root, obtain=obtain, encoder=encoder, doubt=doubt, labelled=labelled
    )


def _listed(path: Path, root: Path, dataset: str, obtain: str) -> tuple[tuple[str, ...], dict[str, list[Source]]]:
    rows = list(read_table(path, ("path",), obtain=obtain))
    _check_distinct(rows, root)
    label_names, labels = _labels(rows)
    listed: dict[str, list[Source]] = {}
    for row, label in zip(rows, labels, strict=True):
        split = row.get("split") or "train"
        name = next((name for name, others in SPLIT_FOLDERS.items() if split in others), None)
        if name is None:
            raise row.error(f"the split {split!r}", f"Use one of {', '.join(SPLIT_FOLDERS)}")
        listed.setdefault(name, []).append(Source(id=row["path"], path=root / row["path"], label=label))
    return label_names, listed


def _check_distinct(rows: list[TableRow], root: Path) -> None:
    """Raise DatasetError if a row has no path, or two have the same one."""
    lines: dict[str, int] = {}
    for row in rows:
        if not row["path"]:
            raise row.error("no path")
        line = lines.setdefault(os.path.normpath(root / row["path"]), row.line)
        if line != row.line:
            raise row.error(f"the path {row['path']!r}, as line {line} has", "Take one of them out")


def _labels(rows: list[TableRow]) -> tuple[tuple[str, ...], list[int]]:
    """The sorted names, and the number of each row's label, -1 for none.

    If all labels are numbers, the names are the numbers 0 to the largest, so that each keeps its value.
    """
    found = {row.get("label") for row in rows} - {""}
    if found and all(whole_number(label) is not None for label in found):
        numbers = [row.number("label") if row.get("label") else -1 for row in rows]
        return tuple(map(str, range(1 + max(numbers)))), numbers
    names = tuple(sorted(found))
    number = {name: n for n, name in enumerate(names)}
    return names, [number.get(row.get("label"), -1) for row in rows]
