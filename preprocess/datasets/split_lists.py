"""Finds the list of a split by a word in its name, such as `train_list.txt`, `k710_val.csv` or `audioset_eval.json`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from maskstream.shards.errors import DatasetError

EVAL = ("eval", "evaluation")


def split_lists(
    dataset: str, folders: Iterable[Path], words: Mapping[str, Collection[str]], suffixes: Collection[str], obtain: str
) -> dict[str, Path]:
    """The list of each split that has one: a file with one of `suffixes` whose name has one of the split's `words`.

    Raises DatasetError if several files could be the list of a split, or train has none.
    """
    places = [folder for folder in folders if folder.is_dir()]
    files = [path for folder in places for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes]
    found: dict[str, Path] = {}
    for split, own in words.items():
        alike = [path for path in files if {*own} & {*re.split(r"[^a-z]+", path.stem.lower())} and path.is_file()]
        if len(alike) > 1:
            names = ", ".join(map(str, alike))
            raise DatasetError(f"{dataset}: several files may be the list of the split {split} ({names}); keep one")
        if alike:
            found[split] = alike[0]
    if "train" not in found:
        raise DatasetError(f"{dataset}: there is no list of the split train in {places[0]}. {obtain}")
    return found
