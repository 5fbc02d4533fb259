"""Kinetics-400 as the CVD Foundation publishes it, or in class folders.

Files below ROOT: the lists `train.csv`, `val.csv` (or `validate.csv`) and `test.csv`, in ROOT or in `annotations/`,
with the columns label, youtube_id, time_start, time_end; and the videos in any folder, as
`{id}_{start:06d}_{end:06d}.mp4`. Files in a folder `replacement*` (repaired copies) take precedence over others of the
same name. Without lists, the folders `train` (or `videos_train`), `val`, `test` hold one folder per class.

W. Kay et al., The Kinetics Human Action Video Dataset, arXiv 1705.06950.
"""

from __future__ import annotations

from pathlib import Path

from ....shards.errors import DatasetError
from ...lists import Row, read_table
from ...source import Source
from ..class_folders import class_folders
from ..dataset import Dataset, MediaFiles, dataset_of, first_existing, require_folder

OBTAIN = (
    "Get lists and videos with the scripts of github.com/cvdfoundation/kinetics-dataset, and lay them out as ROOT/"
    "annotations/train.csv and val.csv, ROOT/train/*.mp4, ROOT/val/*.mp4, ROOT/replacement_for_corrupted_k400/*.mp4"
)
_NEEDED = ("youtube_id", "time_start", "time_end")
_LISTS = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}


def k400(root: Path) -> Dataset:
    """The splits that have a list, but test only if its videos exist. Raises DatasetError for another layout."""
    require_folder(root, name="k400", obtain=OBTAIN)
    found = {split: _list_of(root, names) for split, names in _LISTS.items()}
    rows = {split: list(read_table(path, _NEEDED, obtain=OBTAIN)) for split, path in found.items() if path is not None}
    if rows:
        return _listed(root, rows)
    label_names, listed, doubt = class_folders(root)
    if not label_names:
        raise DatasetError(
            f"k400: {root} holds neither lists (annotations/train.csv, val.csv, or the same without annotations/) nor "
            f"folders train and val with one folder per class. {OBTAIN}"
        )
    return dataset_of("k400", label_names, listed, root=root, obtain=OBTAIN, doubt=doubt)


def _listed(root: Path, rows: dict[str, list[Row]]) -> Dataset:
    label_names = sorted({label for split in rows.values() for row in split if (label := row.get("label"))})
    numbers = {name: number for number, name in enumerate(label_names)}
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
    return dataset_of("k400", label_names, listed, root=root, obtain=OBTAIN)


def _list_of(root: Path, names: tuple[str, ...]) -> Path | None:
    patterns = [
        f"{folder}{form}.csv" for name in names for folder in ("annotations/", "") for form in (name, f"*_{name}")
    ]
    return first_existing(root, *patterns)
