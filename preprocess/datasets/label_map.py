"""The names of labels that lists give as numbers: a name a line, as VideoMAE V2, MMAction2 and UCF101 keep them."""

from __future__ import annotations

import re
from pathlib import Path

from maskstream.preprocess.raw.lists import read_lines
from maskstream.shards.errors import DatasetError

from .dataset import first_existing


def label_map(dataset: str, root: Path, count: int, obtain: str) -> list[str]:
    """The names of labels from 0 on, in `label_map*.txt` or `classInd.txt` in ROOT or a folder there; without these
    files their numbers. The line of a name is its label.

    Raises DatasetError if there are fewer than `count` names.
    """
    path = first_existing(root, "label_map*.txt", "*/label_map*.txt", "classInd.txt", "*/classInd.txt")
    if path is None:
        return list(map(str, range(count)))
    names = [re.sub(r"^[0-9]+ ", "", line) if path.name == "classInd.txt" else line for _, line in read_lines(path)]
    if len(names) < count:
        raise DatasetError(f"{dataset}: {path} has {len(names)} names, but a list has the label {count - 1}. {obtain}")
    return names
