"""Finds the list of a split by a word in its name, such as `k710_val.csv`, and the names of numbered labels.

What is held out for validation, where a publisher has no split, are whole groups of sources that are alike, chosen by
the hash of their names. Near-duplicates in both splits would let a model that only remembers its training data look
good. The choice depends on names alone, so it is the same on every machine, and stays the same for a group when others
are added or taken away from other labels.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import xxhash

from maskstream.preprocess.raw.lists import read_lines
from maskstream.shards.errors import DatasetError

from .dataset import first_existing


def label_map(dataset: str, root: Path, count: int, obtain: str) -> list[str]:
    """The names of labels from 0 on, as VideoMAE V2, MMAction2 and UCF101 keep them: in `label_map*.txt` or
    `classInd.txt` in ROOT or a folder there; without these files their numbers. The line of a name is its label.

    Raises DatasetError if there are fewer than `count` names.
    """
    path = first_existing(root, "label_map*.txt", "*/label_map*.txt", "classInd.txt", "*/classInd.txt")
    if path is None:
        return list(map(str, range(count)))
    names = [re.sub(r"^[0-9]+ ", "", line) if path.name == "classInd.txt" else line for _, line in read_lines(path)]
    if len(names) < count:
        raise DatasetError(f"{dataset}: {path} has {len(names)} names, but a list has the label {count - 1}. {obtain}")
    return names


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


def held_out_groups(sources: Iterable[tuple[int, str]], share: float = 0.2) -> set[str]:
    """The groups that are validation; sources: the label and the group of each source.

    Of each label about `share` of the sources are held out: groups are taken in the order of their hashes, while the
    share is not exceeded by more than half a group. At least one group of each label is held out, and at least one is
    kept for training; the only group of a label is kept. A group of several labels is held out whole if one of them
    holds it out.
    """
    by_label: dict[int, Counter[str]] = {}
    for label, group in sources:
        by_label.setdefault(label, Counter())[group] += 1
    found: set[str] = set()
    for sizes in by_label.values():
        wanted = share * sizes.total()
        taken = 0
        for group in sorted(sizes, key=_hash)[: len(sizes) - 1]:
            if taken and taken + sizes[group] / 2 > wanted:
                continue
            taken += sizes[group]
            found.add(group)
    return found


def _hash(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode())
