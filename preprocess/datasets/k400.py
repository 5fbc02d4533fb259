"""Kinetics-400, -600 and -700 as the CVD Foundation publishes them, or in class folders.

Files below ROOT: the lists `train.csv`, `val.csv` (or `validate.csv`) and `test.csv`, or the same with .txt, in ROOT or
in `annotations/`, with the columns label, youtube_id, time_start, time_end; and the videos in any folder, as
`{id}_{start:06d}_{end:06d}.mp4`. Files in a folder `replacement*` (repaired copies) take precedence over others of the
same name. Without lists, the folders `train` (or `videos_train`), `val`, `test` hold one folder per class.

W. Kay et al., The Kinetics Human Action Video Dataset, arXiv 1705.06950; J. Carreira et al., arXiv 1808.01340 (600);
L. Smaira et al., arXiv 2010.10864 (700-2020).
"""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.raw.lists import TableRow, read_table
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import (
    Dataset,
    MediaFiles,
    dataset_of,
    first_existing,
    in_archives,
    one_down,
    require_folder,
)
from .folders import class_folders

OBTAIN = (
    "Get lists and videos with the scripts of github.com/cvdfoundation/kinetics-dataset, and lay them out as ROOT/"
    "annotations/train.csv and val.csv, ROOT/train/*.mp4, ROOT/val/*.mp4, ROOT/replacement_for_corrupted_k400/*.mp4; "
    "or leave the parts packed, as ROOT/k400_targz/train/part_0.tar.gz"
)
_NEEDED = ("youtube_id", "time_start", "time_end")
_LISTS = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}


@in_archives(".csv")
def k400(root: Path, name: str = "k400") -> Dataset:
    """The splits that have a list, but test only if its videos exist. Raises DatasetError for another layout."""
    require_folder(root, name=name, obtain=OBTAIN)
    found = {split: _list_of(root, names) for split, names in _LISTS.items()}
    rows = {split: list(read_table(path, _NEEDED, obtain=OBTAIN)) for split, path in found.items() if path is not None}
    if rows:
        return _listed(root, rows, name)
    if near := one_down(root, "annotations/train.csv", "annotations/train.txt"):
        raise DatasetError(f"{name}: there is no annotations/train.csv in {root}.{near} {OBTAIN}")
    label_names, listed, doubt = class_folders(root)
    if not label_names:
        raise DatasetError(
            f"{name}: {root} holds neither lists (annotations/train.csv, val.csv, or the same without annotations/) "
            f"nor folders train and val with one folder per class. {OBTAIN}"
        )
    if doubt:
        doubt = f"{doubt}; or put the lists of the splits, which lack, into ROOT/annotations/ (train.csv, val.csv)"
    return dataset_of(name, label_names, listed, root=root, obtain=OBTAIN, doubt=doubt)


def _listed(root: Path, rows: dict[str, list[TableRow]], name: str) -> Dataset:
    label_names = sorted({label for split in rows.values() for row in split if (label := row.get("label"))})
    numbers = {label: number for number, label in enumerate(label_names)}
    files = MediaFiles(root)
    listed: dict[str, list[Source]] = {}
    for split, entries in rows.items():
        listed[split] = []
        for row in entries:
            stem = f"{row['youtube_id']}_{int(row.seconds('time_start')):06d}_{int(row.seconds('time_end')):06d}"
            path = files.find(stem, lambda path: path.parent.name.startswith("replacement"))
            listed[split].append(Source(id=f"{split}/{stem}", path=path, label=numbers.get(row.get("label"), -1)))
    if not any(source.path.is_file() for source in listed.get("test", [])):
        listed.pop("test", None)
    return dataset_of(name, label_names, listed, root=root, obtain=OBTAIN)


def _list_of(root: Path, names: tuple[str, ...]) -> Path | None:
    patterns = [
        f"{folder}{form}.{ending}"
        for ending in ("csv", "txt")
        for name in names
        for folder in ("annotations/", "")
        for form in (name, f"*_{name}")
    ]
    return first_existing(root, *patterns)
