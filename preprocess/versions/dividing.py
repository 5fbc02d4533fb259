"""Divide a finished split: move samples into a validation split, or select a few per label. No tar changes.

Both splits have the same parts of the manifest, and each has a file with the numbers of its samples (`selected`). The
remainder is a new version of the split; earlier versions have all samples, so runs begun on them resume. The new split
has its own folder and refers to parts and shards by path, as a merged split does.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskstream.preprocess.datasets.division import FOLDER, SAMPLE, VAL, Division, group_of_id, hash_with_seed
from maskstream.preprocess.source import SOURCE
from maskstream.shards.arrays import Int64s
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.dataset import (
    FEW,
    FOREIGN,
    HELD_OUT,
    HELD_OUT_OF,
    is_split,
    publish_version,
    read_description,
)
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.rejects import is_erased_key
from maskstream.shards.named import list_few
from maskstream.shards.stores.folders import seen_from
from maskstream.shards.stores.output import Location, Output, open_output, split_folder_and_name, within

from .adding import complete_location
from .merging import publish_merged, tidy
from .samples import Json, Kept, SampleTable, publish_samples

_JSON = "json"
_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Divided:
    """Result of a division.

    Attributes:
        version: Version of the remaining split.
        samples: Number of samples in the remaining split.
        held_out: Location of the validation split.
        held_out_version: Version of the validation split.
        held_out_samples: Number of samples in the validation split.
    """

    version: int
    samples: int
    held_out: str
    held_out_version: int
    held_out_samples: int


def divide(
    split: Location | Output, val: float, *, by: str = SOURCE, seed: int = 0, out: Location | None = None
) -> Divided:
    """Move the fraction `val` of a finished split's samples into a validation split.

    The tars are unchanged. If samples were appended since, the same call divides only those, and earlier assignments
    are unchanged. A killed call leaves the split unchanged, and the same call then selects the same samples.

    Args:
        split: Split to divide.
        val: Fraction of the samples.
        by: Groups that are not divided (see `Division`).
        seed: Random seed of the choice.
        out: Location of the validation split; default `val` next to the split.

    Raises:
        ValueError: The fraction is not allowed.
        DatasetError: The split is an index of foreign tars or a validation split, `out` is another split or was divided
            with other settings, or no group can be moved.
        ShardError: The split cannot be read.
        BusyError: Another run is writing to one of the splits.
    """
    division = Division(share=val, by=by, seed=seed)
    output = open_output(split)
    info = read_description(output.store)  # raises before a lock makes a folder
    other = open_output(within(split_folder_and_name(complete_location(output))[0], VAL) if out is None else out)
    folder = seen_from(output.location, other.location)
    _check(output, other, info, folder)
    with output.sole_writer(), other.sole_writer():
        info = read_description(output.store)
        whole = Manifest.open(output.store, info=info, whole=True)
        before = next((one for one in info.get(HELD_OUT, ()) if one["folder"] == folder), None)
        made = {**division.to_dict(), "folder": folder, "samples": len(whole)}
        if before is not None and (changed := [name for name in division.to_dict() if before[name] != made[name]]):
            told = ", ".join(f"{name} was {before[name]!r}, here {made[name]!r}" for name in changed)
            raise DatasetError(
                f"{other.location} was held out of {output.location} with different settings ({told}); use these, or "
                "a different --out"
            )
        held = _read_own(other) if before is not None else np.empty(0, np.int64)
        samples, known = SampleTable.read(output.store, info), 0 if before is None else before["samples"]
        if known < len(whole) or before is None:
            held = np.union1d(held, _choose_samples(division, whole, samples.own, held, known))
        renewed = _publish_held_out(other, whole, held)
        if before != made:
            samples = samples.mark(held, Kept.ELSEWHERE)
            entries = [one for one in info.get(HELD_OUT, ()) if one["folder"] != folder]
            remainder = {
                "version": info["version"] + 1,
                "fingerprint": samples.make_fingerprint(whole.shards()),
                "counts": info["counts"] | samples.count_frames([whole]),
                HELD_OUT: [*entries, made],
            }
            info = publish_samples(output, info | remainder, samples)
            publish_version(output, info)
    return Divided(
        version=info["version"],
        samples=info["counts"]["samples"],
        held_out=str(other.location),
        held_out_version=renewed["version"],
        held_out_samples=renewed["counts"]["samples"],
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Few:
    """A split with a few samples of each label: its location, version and number of samples."""

    out: str
    version: int
    samples: int


def take_few(split: Location | Output, each: int, *, seed: int = 0, out: Location | None = None) -> Few:
    """Create a split `out` with at most `each` samples of each label of a finished split.

    It refers to the tars of the split, which is unchanged. Samples are taken in the order of a seeded hash of their
    keys, so with one seed the first 10 are among the first 30. The same call again includes samples appended since.
    Samples without a label are left out. dataset.json records `few`: the number and the seed.

    Args:
        split: Finished split.
        each: Largest number of samples of a label.
        seed: Random seed of the choice.
        out: Location of the new split; default `few-EACH` next to the split.

    Raises:
        ValueError: `each` is below 1.
        DatasetError: The split has no labels or is an index of foreign tars, or `out` is another split.
        ShardError: The split cannot be read.
        BusyError: Another run is writing to `out`.
    """
    if each < 1:
        raise ValueError(f"few must be the number of samples per label, at least 1, got {each}")
    output = open_output(split)
    info = read_description(output.store)
    other = open_output(
        within(split_folder_and_name(complete_location(output))[0], f"few-{each}") if out is None else out
    )
    few = {"each": each, "seed": seed}
    _check(output, other, info, seen_from(output.location, other.location), few)
    with other.sole_writer():
        whole = Manifest.open(output.store, info=info, whole=True)
        own = SampleTable.read(output.store, info).find(Kept.YES)
        own = own[whole.label[own] >= 0]
        keys = [hash_with_seed(seed, key) for key in whole.keys(own)]
        order = own[sorted(range(len(own)), key=keys.__getitem__)]
        chosen = [order[whole.label[order] == label][:each] for label in np.unique(whole.label[own])]
        if not chosen:
            raise DatasetError(f"{output.location} has no labelled samples; --few takes some from each label")
        made = _publish_held_out(other, whole, np.concatenate(chosen), few)
    return Few(out=str(other.location), version=made["version"], samples=made["counts"]["samples"])


def renew_held_out(output: Output, others: Iterable[Output]) -> list[Output]:
    """Create versions of validation and few-sample splits that refer to the split's current parts, after an erasure.

    Returns:
        The splits with a new version.
    """
    info, renewed = read_description(output.store), []
    for other in others:
        with other.sole_writer():
            whole, there = Manifest.open(output.store, info=info, whole=True), read_description(other.store)
            made = _publish_held_out(other, whole, _read_own(other), there.get(FEW))
            renewed += [other] if made["version"] != there["version"] else []
    return renewed


def _check(
    output: Output, other: Output, info: Mapping[str, Any], folder: str, few: Mapping[str, int] | None = None
) -> None:
    """Raise DatasetError if a split cannot be divided, or not into `other`, which is to have this `few` entry."""
    if info["profile"] == FOREIGN:
        raise DatasetError(
            f"{output.location} is an index of foreign tars, which cannot be divided; index the validation tars "
            "separately with `maskstream index TARS --out FOLDER`"
        )
    if HELD_OUT_OF in info:
        raise DatasetError(f"{output.location} is held out of {info[HELD_OUT_OF]} itself; split that one")
    if folder == ".":
        raise DatasetError(
            f"{output.location} cannot be its own validation split; choose a different folder with --out"
        )
    if is_split(other.store):
        there = read_description(other.store)
        if there.get(HELD_OUT_OF) != seen_from(other.location, output.location):
            raise DatasetError(
                f"{other.location} already contains a validation split that was not held out of {output.location}; "
                "use it, or choose a different folder with --out"
            )
        if (own := there.get(FEW)) != few:
            what = f"{own['each']} samples of each label by the seed {own['seed']}" if own else "samples held out"
            raise DatasetError(
                f"{other.location} has {what} of {output.location} already; choose a different folder with --out"
            )


def _read_own(other: Output) -> Int64s:
    """Return the numbers of the samples of a held-out split."""
    return SampleTable.read(other.store, read_description(other.store)).own


def _choose_samples(division: Division, whole: Manifest, own: Int64s, held: Int64s, known: int) -> Int64s:
    """Return the numbers of the validation samples, assigning only samples from number `known` on.

    Removed samples are ignored.

    Args:
        division: Settings of the division.
        whole: The split with all samples.
        own: Samples of the remaining split.
        held: Samples already in the validation split.
        known: Number of samples that were divided before.
    """
    numbers = np.setdiff1d(np.union1d(own, held), whole.removed, assume_unique=True)
    numbers = numbers[[not is_erased_key(key) for key in whole.keys(numbers)]]
    groups = dict(zip(numbers.tolist(), _find_groups(whole, numbers, division.by), strict=True))
    decided = {groups[number]: False for number in numbers[numbers < known].tolist()}
    decided |= {groups[number]: True for number in held.tolist() if number in groups}
    pairs = ((groups[number], int(whole.label[number])) for number in numbers.tolist())
    chosen = division.held_out(pairs, decided, of=whole.location)
    return np.array([number for number in numbers[numbers >= known].tolist() if groups[number] in chosen], np.int64)


def _find_groups(whole: Manifest, numbers: Int64s, by: str) -> list[str]:
    """Return the group of each sample. Raises DatasetError if a sample lacks the field."""
    if by in (SOURCE, SAMPLE, FOLDER):
        sources = whole.sources().take(numbers).to_pylist()
        return [group_of_id(name, by) for name in sources]
    found = []
    for begin in range(0, len(numbers), _AT_ONCE):
        some = numbers[begin : begin + _AT_ONCE].tolist()
        read = whole.store.read_many([whole.member(number, _JSON) for number in some])
        for number, data in zip(some, read, strict=True):
            with whole.reading(number, _JSON):
                meta = json.loads(data)
            if by not in meta:
                raise DatasetError(
                    f"the sample {whole.key(number)!r} of {whole.location} has no field {by!r} (--val-by); it has "
                    f"{list_few(sorted(meta), repr)}; also accepted are {SOURCE}, {SAMPLE} and {FOLDER}"
                )
            found.append(str(meta[by]))
    return found


def _publish_held_out(other: Output, whole: Manifest, held: Int64s, few: Mapping[str, int] | None = None) -> Json:
    """Make these samples the current version at `other`, unless they are already; return its description.

    Those that were removed there stay removed, and so do erased ones.
    """
    current = read_description(other.store) if is_split(other.store) else None
    kept = np.full(len(whole), Kept.ELSEWHERE, np.uint8)
    kept[held] = Kept.YES
    samples = SampleTable(kept=kept, divided=True)
    if current is not None:
        before = SampleTable.read(other.store, current)
        for why in (Kept.CURATED, Kept.REMOVED):
            samples = samples.mark(before.find(why), why)
    samples = samples.mark(held[[is_erased_key(key) for key in whole.keys(held)]], Kept.REMOVED)
    fields = {
        "split": split_folder_and_name(complete_location(other))[1],
        HELD_OUT_OF: seen_from(other.location, whole.location),
        **({} if few is None else {FEW: few}),
    }
    info = publish_merged(other, current, [whole], samples, fields=fields)
    tidy(other)  # versions from before an erasure
    return info
