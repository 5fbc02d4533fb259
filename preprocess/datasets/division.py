"""Divides a split into training and validation: whole groups of samples are held out, by a seed, and of each label its
share.

What is held out depends on the seed, and on names and labels of the samples, and on nothing else: so it is the same for
any number of workers and parts, on every machine, and after a resume.
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
"""What samples of a group share: the raw file; nothing, for each is its own; the folder of the file. Any other word is
a field of the samples' `json`.
"""
_HOLDS_FILES = (".parquet", ".jsonl")
"""Files whose rows are files of their own: pictures, sounds, videos and documents."""
_WINDOW = re.compile(r"[:#][0-9][0-9.,:_-]*\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Division:
    """The share of the samples that is validation, from 0 to 1; what the samples of a group share (see `SOURCE`); the
    seed of the choice.
    """

    share: float
    by: str = SOURCE
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"val={self.share} must be a share of the samples between 0 and 1, such as 0.05")
        if not self.by:
            raise ValueError(f"val_by is empty; legal are {SOURCE}, {SAMPLE}, {FOLDER} and fields of the samples")

    def __str__(self) -> str:
        return f"--val {self.share:g} --val-by {self.by} --val-seed {self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for dataset.json."""
        return asdict(self)

    def held_out(
        self, samples: Iterable[tuple[str, int]], decided: Mapping[str, bool] | None = None, *, of: str
    ) -> set[str]:
        """The groups that are validation; samples: the group and the label of each sample. of: whose, for messages.

        Of each label about the share of its samples is held out: its groups are taken in the order of their hashes,
        while no more than half a group is too much. What a label has too much or too little the next one gets less or
        more, so that the share is met over all labels, also of classes with few samples. A group of several labels
        counts as its most frequent one. At least one group of a label is kept for training. decided: groups that are
        validation, or are not, whatever the seed says.

        Raises DatasetError if no group can be held out.
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
                    f"{of}: {self} cannot divide a single sample; cut its file into parts, as `start` and `end` of a "
                    "list do, or add samples"
                )
            more = (
                f"give a share of at least {-(-least * 1e5 // n) / 1e5:g}, or"
                if least
                else "each label is one group, of which no share is large enough; choose"
            )
            raise DatasetError(
                f"{of}: {self} holds out none of {n} samples in {len(labels)} group{'s'[: len(labels) != 1]}; {more} "
                f"other groups: --val-by is {SOURCE} (a raw file), {SAMPLE} (each its own), {FOLDER}, or a field of "
                "the samples"
            )
        return found


def hash_with_seed(seed: int, name: str) -> tuple[int, str]:
    """What names are ordered by under a seed: the same on every machine."""
    return xxhash.xxh3_64_intdigest(f"{seed}\0{name}".encode()), name


def group_of_id(source_id: str, by: str) -> str:
    """The group of a sample by the id of its source, for the groups that an id tells: `SOURCE`, `SAMPLE`, `FOLDER`.

    The raw file is the id without the window or the row behind its last ":" or "#"; of a row of a Parquet or JSON Lines
    file, it is the row.
    """
    if by == FOLDER:
        return str(PurePosixPath(source_id).parent)
    file = _WINDOW.sub("", source_id)
    return source_id if by == SAMPLE or file.endswith(_HOLDS_FILES) else file


def divide_sources(raw: Dataset, division: Division, decided: Mapping[str, str] | None = None) -> Dataset:
    """The dataset whose split `train` is divided into `train` and `val`. decided: the splits of sources, by id, that
    are in one already; their groups stay there.

    Raises DatasetError for a dataset without a split `train`, or with a validation split of its own.
    """
    if own := [name for name in _OF_VALIDATION if name in raw.splits]:
        raise DatasetError(
            f"{raw.name} has a validation split of its own, {own[0]!r}; leave out --val (val=), or make the split "
            f"train alone (--split train, splits=['train']) and divide it afterwards (`maskstream split`)"
        )
    if TRAIN not in raw.splits:
        names = list_few(list(raw.splits), repr)
        raise DatasetError(f"{raw.name} has the splits {names}, and --val (val=) divides a split 'train'; leave it out")
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
    """Whether a source shares its raw file with no other: it is computed, or a row."""
    return source.computed or source.path.suffix in _HOLDS_FILES


def _find_groups(sources: Sequence[Source], by: str, name: str) -> list[str]:
    """The group of each source. Raises DatasetError for a field that a source does not have."""
    if by in (SAMPLE, FOLDER):
        return [group_of_id(one.id, by) for one in sources]
    if by == SOURCE:
        first: dict[object, str] = {}
        for one in sources:  # a file is called by the first of its ids, which do not depend on the folder
            if not _is_own(one):
                first[one.path] = min(one.id, first.get(one.path, one.id))
        return [one.id if _is_own(one) else group_of_id(first[one.path], SOURCE) for one in sources]
    for one in sources:
        if by not in one.meta:
            raise DatasetError(
                f"{name}: the source {one.id!r} has no field {by!r} (--val-by); it has "
                f"{list_few(sorted(one.meta), repr) or 'none'}; legal are also {SOURCE}, {SAMPLE} and {FOLDER}"
            )
    return [str(one.meta[by]) for one in sources]
