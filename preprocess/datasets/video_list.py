"""Lists of videos as VideoMAE, VideoMAE V2 and V-JEPA read them: one video a line, and no line with names of columns.

Files in ROOT or in `annotations/`: `train.csv` or `train.txt`, and `val` and `test` in the same way, alone or as a part
of the name (`k710_train.csv`, `train_list.txt`). A line is `PATH LABEL`, or `PATH 0 -1` for a whole video without a
label, with spaces, tabs or commas between. PATH is relative to ROOT, or absolute and below it, and may have spaces.
LABEL is a number; `label_map*.txt` beside the lists may name them, a line each, such as `label_map_k710.txt` of
VideoMAE V2, whose lists merge Kinetics-400, 600 and 700 in 710 labels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maskstream.preprocess.raw.lists import MAX_LABEL, read_lines
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import Dataset, dataset_of, in_archives, require_folder
from .folders import SPLIT_FOLDERS
from .split_lists import label_map, split_lists

NAME = "video-list"
OBTAIN = (
    "Put a list into ROOT/train.csv (and ROOT/val.csv) with a line `PATH LABEL` for each video, PATH relative to ROOT "
    "or absolute. A csv with the columns path,label is read by the dataset `folder`"
)
_LINE = re.compile(r"(?P<path>.+?)[ \t,]+(?P<first>-?[0-9]+)(?:[ \t,]+(?P<second>-?[0-9]+))?")
_SUFFIXES = (".csv", ".txt", ".list")
_WHOLE = (0, -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    """A line of a list: its number, the path, and the label, -1 for none."""

    number: int
    path: str
    label: int


@in_archives(".csv", ".txt")
def video_list(root: Path) -> Dataset:
    """The splits that have a list. Raises DatasetError for another layout, and for a path that is listed twice."""
    require_folder(root, name=NAME, obtain=OBTAIN)
    lists = split_lists(NAME, (root, root / "annotations"), SPLIT_FOLDERS, _SUFFIXES, OBTAIN)
    lines = {split: list(_lines(path)) for split, path in lists.items()}
    _check_distinct(root, lists, lines)
    most = max((line.label for rows in lines.values() for line in rows), default=-1)
    listed = {
        split: [Source(id=line.path, path=root / line.path, label=line.label) for line in rows]
        for split, rows in lines.items()
    }
    names = label_map(NAME, root, most + 1, OBTAIN) if most >= 0 else []
    return dataset_of(NAME, names, listed, root=root, obtain=OBTAIN, labelled=most >= 0)


def _lines(path: Path) -> Iterator[_Line]:
    """The lines of a list, which all have the same form."""
    form: bool | None = None
    for number, text in read_lines(path):
        found = _LINE.fullmatch(text)
        if found is None:
            raise DatasetError(f"{path}: line {number} is {text[:80]!r}, not `PATH LABEL` or `PATH 0 -1`. {OBTAIN}")
        whole = found["second"] is not None
        if form is not None and whole != form:
            raise DatasetError(f"{path}: line {number} has another form than the lines before it; use one form")
        form = whole
        label = int(found["first"]) if len(found["first"]) < 10 else MAX_LABEL + 1
        if whole and (label, int(found["second"])) != _WHOLE:
            raise DatasetError(
                f"{path}: line {number} takes frames {found['first']}, {found['second']} of {found['path'][:80]!r}; "
                "only `PATH 0 -1`, a whole video, can be read"
            )
        if not whole and not -1 <= label <= MAX_LABEL:
            raise DatasetError(
                f"{path}: line {number} has the label {found['first'][:20]}, not a number from 0 to {MAX_LABEL}, or -1 "
                "for none"
            )
        yield _Line(number=number, path=found["path"], label=-1 if whole else label)


def _check_distinct(root: Path, lists: dict[str, Path], lines: dict[str, list[_Line]]) -> None:
    """Raise DatasetError if a path is listed twice, also in two lists: a model would be validated on what it saw."""
    seen: dict[str, str] = {}
    for split, rows in lines.items():
        for line in rows:
            here = f"{lists[split]}: line {line.number}"
            first = seen.setdefault(os.path.normpath(root / line.path), here)
            if first != here:
                raise DatasetError(f"{here} has the path {line.path!r}, as {first} has. Take one of them out")
