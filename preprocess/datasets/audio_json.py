"""Lists of sounds as AST and Audio-MAE read them: JSON files of paths and ids of classes.

Files in ROOT: `class_labels_indices.csv` (index, mid, display_name), and JSON files whose names have the word `train`,
and `eval`, `val` or `test`, as `audioset_train.json`: {"data": [{"wav": PATH, "labels": "/m/04rlf,/m/02mscn"}, ...]}.
PATH is relative to ROOT, or absolute and below it. A sound's label is its first class; `json` holds all classes as
`labels`.

Y. Gong, Y.-A. Chung, J. Glass, AST, Interspeech 2021.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.raw.lists import read_json
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .audioset import CLASSES, classes
from .dataset import Dataset, dataset_of, in_archives, require_folder
from .folders import SPLIT_FOLDERS
from .split_lists import EVAL, split_lists

NAME = "audio-json"
OBTAIN = (
    f"Put {CLASSES} and the lists into ROOT, such as ROOT/train.json and ROOT/eval.json: "
    '{"data": [{"wav": PATH, "labels": "/m/ID,/m/ID"}, ...]}'
)


@in_archives(".csv", ".json")
def audio_json(root: Path) -> Dataset:
    """The splits that have a list. Raises DatasetError for another layout."""
    require_folder(root, name=NAME, obtain=OBTAIN)
    words = {**SPLIT_FOLDERS, "val": (*SPLIT_FOLDERS["val"], *EVAL)}
    lists = split_lists(NAME, (root,), words, (".json",), OBTAIN)
    numbers, label_names = classes(root, NAME, OBTAIN)
    listed = {
        split: [_source(entry, f"{path}: entry {i}", numbers, root) for i, entry in enumerate(_entries(path))]
        for split, path in lists.items()
    }
    return dataset_of(NAME, label_names, listed, root=root, obtain=OBTAIN, encoder=AudioEncoder())


def _entries(path: Path) -> list[Any]:
    found = read_json(path, OBTAIN)
    entries = found.get("data") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise DatasetError(f"{path} has no list `data`. {OBTAIN}")
    return entries


def _source(entry: object, where: str, numbers: dict[str, int], root: Path) -> Source:
    wav = entry.get("wav") if isinstance(entry, dict) else None
    ids = entry.get("labels") if isinstance(entry, dict) else None
    if not isinstance(wav, str) or not wav or not isinstance(ids, str):
        raise DatasetError(f"{where} has no text `wav` or no text `labels`. {OBTAIN}")
    known = [mid.strip() for mid in ids.split(",")]
    if unknown := [mid for mid in known if mid not in numbers]:
        raise DatasetError(f"{where} has the class {unknown[0][:40]!r}, which is not in {CLASSES}. {OBTAIN}")
    labels = [numbers[mid] for mid in known]
    return Source(id=wav, path=root / wav, label=labels[0], meta={"labels": labels})
