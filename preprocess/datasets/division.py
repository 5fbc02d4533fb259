"""Divide a split into training and validation: whole groups of samples are held out by a seed, about the same fraction
of each label.

The choice depends only on the seed and on the names and labels of the samples, so it is the same for any number of
workers and parts, on every machine, and after a resume.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import xxhash

from maskstream.preprocess.source import SOURCE, Source
from maskstream.shards.errors import DatasetError
from maskstream.shards.named import list_few

from .dataset import Dataset

TRAIN, VAL = "train", "val"
_OF_VALIDATION = (VAL, "valid", "validation", "dev")
SAMPLE, FOLDER = "sample", "folder"
"""Ways to group samples besides `SOURCE` (by raw file): each sample on its own, or by the folder of the file. Any other
word is a field of the samples' `json`.
"""
_HOLDS_FILES = (".parquet", ".jsonl")
"""Suffixes of files whose rows count as separate files: images, audio, videos and documents."""
_WINDOW = re.compile(r"[:#][0-9][0-9.,:_-]*\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Division:
    """How to divide a split into training and validation.

    Attributes:
        share: Fraction of the samples for validation, between 0 and 1.
        by: Grouping: `SOURCE`, `SAMPLE`, `FOLDER`, or a field of the samples' `json`. Groups are never divided.
        seed: Random seed of the choice.

    Raises:
        ValueError: The share is not between 0 and 1, or the grouping is empty.
    """

    share: float
    by: str = SOURCE
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"val={self.share} must be a fraction of the samples between 0 and 1, such as 0.05")
        if not self.by:
            raise ValueError(f"val_by is empty; use {SOURCE}, {SAMPLE}, {FOLDER} or a field of the samples")

    def __str__(self) -> str:
        return f"--val {self.share:g} --val-by {self.by} --val-seed {self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """Return the division as JSON values, for dataset.json."""
        return asdict(self)

    def held_out(
        self, samples: Iterable[tuple[str, int]], decided: Mapping[str, bool] | None = None, *, of: str
    ) -> set[str]:
        """Choose the groups that form the validation split.

        Each label contributes about the share of its samples: its groups in the order of their hashes, as long as they
        exceed it by at most half a group. The surplus or deficit of a label is carried to the next one, so that the
        share is met over all labels, also for classes with few samples. A group of several labels counts as its most
        frequent one. At least one group of each label remains in training.

        Args:
            samples: Group and label of each sample.
            decided: Groups whose side is fixed regardless of the seed: True for validation.
            of: Name of the dataset or split, for messages.

        Raises:
            DatasetError: No group can be held out.
        """
        decided = decided or {}
        labels: defaultdict[str, Counter[int]] = defaultdict(Counter)
        for group, label in samples:
            labels[group][label] += 1
        by_label: defaultdict[int, list[str]] = defaultdict(list)
        for group, counts in labels.items():
            by_label[min(counts, key=lambda label: (-counts[label], label))].append(group)
        found: set[str] = set()
        carried = 0.0
        for label in sorted(by_label):
            own = {group: labels[group].total() for group in by_label[label]}
            most = max(own.values())
            wanted = self.share * sum(own.values()) + max(-most, min(carried, most))
            held = {group for group in own if decided.get(group)}
            taken = sum(own[group] for group in held)
            for group in sorted(own.keys() - decided.keys(), key=partial(hash_with_seed, self.seed)):
                if len(held) < len(own) - 1 and taken + own[group] / 2 <= wanted:
                    held.add(group)
                    taken += own[group]
            found |= held
            carried = wanted - taken
        if not found:
            sizes = [labels[group].total() for own in by_label.values() if len(own) > 1 for group in own]
            n, least = sum(counts.total() for counts in labels.values()), min(sizes, default=0) / 2
            if n == 1:
                raise DatasetError(
                    f"{of}: {self} cannot divide a single sample. Cut its file into parts, with `start` and `end` in a "
                    "list, or add samples"
                )
            more = (
                f"use a fraction of at least {-(-least * 1e5 // n) / 1e5:g}, or"
                if least
                else "each label has only one group, so no fraction is large enough; use"
            )
            raise DatasetError(
                f"{of}: {self} holds out none of {n} samples in {len(labels)} group{'s'[: len(labels) != 1]}; {more} "
                f"another grouping: --val-by {SOURCE} (by raw file), {SAMPLE} (each on its own), {FOLDER}, or a field "
                "of the samples"
            )
        return found


def hash_with_seed(seed: int, name: str) -> tuple[int, str]:
    """Return the sort key of a name under a seed, the same on every machine."""
    return xxhash.xxh3_64_intdigest(f"{seed}\0{name}".encode()), name


def group_of_id(source_id: str, by: str) -> str:
    """Return the group of a sample by the id of its source.

    The raw file is the id without a time window or row after its last ":" or "#"; for a row of a Parquet or JSON Lines
    file, it is the whole id.

    Args:
        source_id: Id of the source.
        by: `SOURCE`, `SAMPLE` or `FOLDER`.
    """
    if by == FOLDER:
        return str(PurePosixPath(source_id).parent)
    file = _WINDOW.sub("", source_id)
    return source_id if by == SAMPLE or file.endswith(_HOLDS_FILES) else file


def divide_sources(raw: Dataset, division: Division, decided: Mapping[str, str] | None = None) -> Dataset:
    """Divide the split `train` of a dataset into `train` and `val`.

    Args:
        raw: Dataset to divide.
        division: Fraction, grouping and seed.
        decided: Splits by id, of sources that already belong to one; their groups remain there.

    Raises:
        DatasetError: The dataset has no split `train`, has a validation split already, or no group can be held out.
    """
    if own := [name for name in _OF_VALIDATION if name in raw.splits]:
        raise DatasetError(
            f"{raw.name} already has a validation split, {own[0]!r}. Remove --val (val=), or create only the split "
            "train (--split train, splits=['train']) and divide it later with `maskstream split`"
        )
    if TRAIN not in raw.splits:
        names = list_few(list(raw.splits), repr)
        raise DatasetError(f"--val (val=) divides the split 'train', but {raw.name} has the splits {names}; remove it")
    sources = raw.splits[TRAIN]
    groups = _find_groups(sources, division.by, raw.name)
    known = {
        group: (decided or {})[one.id] == VAL
        for one, group in zip(sources, groups, strict=True)
        if one.id in (decided or {})
    }
    pairs = ((group, one.label) for one, group in zip(sources, groups, strict=True))
    held = division.held_out(pairs, known, of=raw.name)
    both: dict[str, list[Source]] = {TRAIN: [], VAL: []}
    for one, group in zip(sources, groups, strict=True):
        both[VAL if group in held else TRAIN].append(one)
    return replace(raw, splits={**raw.splits, **both})


def _is_own(source: Source) -> bool:
    """Return whether a source shares its raw file with no other: it is computed, or a row."""
    return source.computed or source.path.suffix in _HOLDS_FILES


def _find_groups(sources: Sequence[Source], by: str, name: str) -> list[str]:
    """Return the group of each source. Raise DatasetError if a source lacks the field."""
    if by in (SAMPLE, FOLDER):
        return [group_of_id(one.id, by) for one in sources]
    if by == SOURCE:
        first: dict[object, str] = {}
        for one in sources:  # the smallest id of a file names its group, independent of the folder
            if not _is_own(one):
                first[one.path] = min(one.id, first.get(one.path, one.id))
        return [one.id if _is_own(one) else group_of_id(first[one.path], SOURCE) for one in sources]
    for one in sources:
        if by not in one.meta:
            raise DatasetError(
                f"{name}: the source {one.id!r} has no field {by!r} (--val-by). Use one of its fields "
                f"({list_few(sorted(one.meta), repr) or 'none'}), or {SOURCE}, {SAMPLE} or {FOLDER}"
            )
    return [str(one.meta[by]) for one in sources]
