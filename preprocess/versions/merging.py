"""Merge splits into one that refers to their parts and shards in place; no tar is copied.

Merging and appending both check that the splits fit together, and combine their counts, sums, rejects and removed
samples.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from maskstream.shards.errors import DatasetError, ShardError
from maskstream.shards.format.checked_file import read_checked
from maskstream.shards.format.columns import FORMAT
from maskstream.shards.format.dataset import (
    CURATION_OF,
    CURATIONS,
    FOREIGN,
    HELD_OUT_OF,
    is_index,
    is_split,
    list_own_curations,
    list_versions,
    name_version,
    publish_version,
    read_description,
)
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.part_writer import find_repeated_keys, hash_keys
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.format.sample import Reject
from maskstream.shards.format.tokenizer import TOKENIZER, TOKENIZER_JSON, find_tokenizer_files, find_tokenizer_name
from maskstream.shards.named import list_few
from maskstream.shards.stores.folders import (
    file_name,
    get_folder_name,
    is_elsewhere,
    joined,
    open_merged_store,
    seen_from,
)
from maskstream.shards.stores.output import Location, Output, open_output
from maskstream.shards.stores.url import is_url

from .samples import Json, Kept, SampleTable, publish_samples


def add_counts(splits: Sequence[Manifest]) -> dict[str, int]:
    """Add up the counts of splits."""
    names = dict.fromkeys(name for split in splits for name in split.info["counts"])
    return {name: sum(split.info["counts"].get(name, 0) for split in splits) for name in names}


def add_sums(splits: Sequence[Manifest]) -> dict[str, list[float]]:
    """Add up the sums over all samples; {} if a split lacks some."""
    sums = [split.info.get("sums", {}) for split in splits]
    if any(one.keys() != sums[0].keys() for one in sums):
        return {}
    return {name: [math.fsum(values) for values in zip(*(one[name] for one in sums), strict=True)] for name in sums[0]}


def join_curations(
    output: Output, records: Sequence[dict[str, Any]], splits: Sequence[Manifest]
) -> dict[str, list[dict[str, Any]]]:
    """Return the records of curations as a field of a description; empty without any.

    Args:
        output: The new split.
        records: The records that it keeps.
        splits: The merged or appended splits. Each of their records refers to the folder of its split.
    """
    records = [*records]
    for split in splits:
        for one in split.info.get(CURATIONS, ()):
            place = joined(split.location, one[CURATION_OF]) if CURATION_OF in one else split.location
            try:
                folder = seen_from(output.location, place)
            except ValueError:  # an appended split in another store
                folder = place
            records.append(one | {CURATION_OF: folder})
    return {CURATIONS: records} if records else {}


def join_rejects(splits: Sequence[Manifest], retried: AbstractSet[str] = frozenset()) -> list[Reject]:
    """Return the sorted rejects of splits. Sources that the last split has `retried` do not count in the others."""
    rejects = [
        reject
        for split in splits
        for reject in read_rejects(split.store, split.info)
        if split is splits[-1] or reject.source not in retried
    ]
    return sorted(rejects, key=lambda reject: (reject.source, reject.stage, reject.reason))


_AT_ONCE = 1 << 16


def check_fit(ours: Manifest, theirs: Manifest) -> None:
    """Raise DatasetError with the difference if two splits do not fit together. Labels and keys are not compared."""
    if FOREIGN in (ours.info["profile"], theirs.info["profile"]):
        raise DatasetError(
            "an index of foreign tars cannot be appended or merged; index all tars together with `maskstream index`"
        )
    for what in ("modality", "profile"):
        if ours.info[what] != theirs.info[what]:
            raise DatasetError(
                f"{theirs.location} has the {what} {theirs.info[what]!r}, but {ours.location} has "
                f"{ours.info[what]!r}; write both the same way with `maskstream shards`"
            )
    encoders = [one.info["settings"].get("encoder") for one in (ours, theirs)]
    if encoders[0] != encoders[1]:
        raise DatasetError(
            f"{theirs.location} was encoded with {encoders[1]}, but {ours.location} with {encoders[0]}; write both "
            "the same way with `maskstream shards`"
        )
    for name in ours.components.keys() & theirs.components.keys():
        kinds = ours.components[name].kind, theirs.components[name].kind
        if kinds[0] != kinds[1]:
            raise DatasetError(
                f"component {name!r} is {kinds[1]} in {theirs.location}, but {kinds[0]} in {ours.location}"
            )


def check_distinct(splits: Sequence[Manifest]) -> None:
    """Raise DatasetError if a split occurs twice."""
    places = [split.location for split in splits]
    if again := [place for n, place in enumerate(places) if place in places[:n]]:
        raise DatasetError(f"{again[0]} was passed twice; pass each split once")
    owner: dict[str, str] = {}
    for split in splits:
        for part in split.info["parts"]:
            other = owner.setdefault(_place(split, part["name"]), split.location)
            if other != split.location:
                raise DatasetError(
                    f"{split.location} and {other} have the same shards, as they were divided with `maskstream "
                    "split`; pass one of them. Earlier versions contain all samples (`--data-version`)"
                )


def _place(split: Manifest, part: str) -> str:
    """Return the location of a part, independent of the split that refers to it."""
    place = _locate_folder(split, part)
    return f"{place if is_url(place) else Path(place).resolve()}/{file_name(part)}"


def check_keys(splits: Sequence[Manifest]) -> None:
    """Raise DatasetError with the keys and splits if two splits share a key."""
    check_distinct(splits)
    hashes = [hash_keys(keys) for split in splits for keys in read_keys(split)]
    twice = find_repeated_keys(hashes, (keys for split in splits for keys in read_keys(split)))
    if not twice:
        return
    where = [split.location for split in splits if any(twice[0] in keys for keys in read_keys(split))]
    shown = list_few(twice, repr)
    raise DatasetError(
        f"{len(twice)} keys are in more than one split, for example {twice[0]!r} in both {where[0]} and {where[-1]}: "
        f"{shown}"
    )


def read_keys(manifest: Manifest) -> Iterator[list[str]]:
    """Yield the keys of all samples, group by group."""
    for begin in range(0, len(manifest), _AT_ONCE):
        yield manifest.keys(range(begin, min(begin + _AT_ONCE, len(manifest))))


def find_keys(splits: Sequence[Manifest], keys: AbstractSet[str]) -> dict[str, int]:
    """Return the numbers of the samples with these keys, among all samples of the splits."""
    every = (key for split in splits for some in read_keys(split) for key in some)
    return {key: number for number, key in enumerate(every) if key in keys}


MERGED = "merged"
"""Setting of a merged split that lists its splits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """Result of a merge: the current version of the merged split, and its numbers of samples and shards."""

    version: int
    samples: int
    shards: int


def merge(out: Location | Output, splits: Sequence[Location]) -> Merged:
    """Create a split at `out` from the current versions of several splits, in this order.

    It refers to their manifest parts and shards by relative paths or URLs and copies neither, so the splits must stay
    in place as seen from `out`. Samples appended to them or removed from them later do not change it. Erasing samples
    from them makes it unreadable until the same call creates a new version in the same order; versions that can no
    longer be read are then deleted. Samples removed from the merged split itself remain removed.

    Args:
        out: Location of the merged split.
        splits: Locations of at least two splits.

    Raises:
        ValueError: There are fewer than two splits, or `out` cannot refer to one.
        DatasetError: The splits differ in modality, profile, encoder settings, labels or components, or share keys, or
            `out` contains shards itself.
        ShardError: A split cannot be read.
        BusyError: Another run is writing to `out`.
    """
    if len(splits) < 2:
        raise ValueError(f"a merge needs at least two splits, got {len(splits)}")
    output = open_output(out)
    found = [Manifest.load(one, whole=True) for one in splits]
    folders = [seen_from(output.location, one.location) for one in found]
    for other in found[1:]:
        check_fit(found[0], other)
        if other.info["label_names"] != found[0].info["label_names"]:
            raise DatasetError(
                f"{other.location} has the labels {_shown(other)}, but {found[0].location} has {_shown(found[0])}; "
                "`maskstream append` matches labels by name"
            )
    check_keys(found)
    if is_split(output.store):
        _check_merged(output)
    with output.sole_writer():
        current = read_description(output.store) if is_split(output.store) else None
        samples = SampleTable.join(found)
        if current is not None:
            samples = _keep_removed(output, found, current, folders, samples)
        info = publish_merged(output, current, found, samples, join_rejects(found), curated=found)
        tidy(output)  # including leftovers of a killed merge
    return Merged(version=info["version"], samples=info["counts"]["samples"], shards=info["counts"]["shards"])


def _keep_removed(
    output: Output, found: Sequence[Manifest], current: Mapping[str, Any], folders: Sequence[str], samples: SampleTable
) -> SampleTable:
    """Mark the samples that were removed from the merged split itself."""
    before, moved = SampleTable.read(output.store, current), None
    removed = before.removed
    if len(removed) and (folders != current["settings"][MERGED] or len(before.kept) != len(samples.kept)):
        # The splits are different ones or have grown, so sample numbers have changed; an erasure alone changes none.
        if not _is_openable(output, None):
            raise DatasetError(
                f"{output.location} has {len(removed)} removed samples, and its splits have gained or lost samples "
                "since, some by an erasure. Merge into a different folder and remove the samples there"
            )
        moved = Manifest.open(output.store, whole=True)
    for why in (Kept.CURATED, Kept.REMOVED):
        numbers = before.find(why)
        if moved is not None:
            numbers = np.array([*find_keys(found, {*moved.keys(numbers)}).values()], np.int64)
        samples = samples.mark(numbers, why)
    return samples


def publish_merged(
    output: Output,
    current: Json | None,
    splits: Sequence[Manifest],
    samples: SampleTable,
    rejects: Sequence[Reject] = (),
    curated: Sequence[Manifest] = (),
    fields: Mapping[str, object] = MappingProxyType({}),
) -> Json:
    """Create a version that refers to the parts of splits in place, unless the current one is the same.

    Args:
        output: The split that refers to them.
        current: Description of its current version; None if it is new.
        splits: The splits, opened whole.
        samples: Samples of the new version.
        rejects: Rejects of the new version.
        curated: Splits whose records of curations are copied.
        fields: More fields of the description.

    Returns:
        The description of the current version.
    """
    first, parts, files = splits[0].info, [], {}
    for split in splits:
        for part in split.info["parts"]:
            name = f"{seen_from(output.location, _locate_folder(split, part['name']))}/{file_name(part['name'])}"
            parts.append(part | {"name": name})
            files[parts[-1]["name"]] = split.info["files"][part["name"]]
    encoder = {"encoder": first["settings"]["encoder"]} if "encoder" in first["settings"] else {}
    info: Json = {
        "format": FORMAT,
        "version": 1 if current is None else current["version"] + 1,
        "dataset": "+".join(dict.fromkeys(split.info["dataset"] for split in splits)),
        **{name: first[name] for name in ("split", "modality", "profile")},
        "settings": encoder | {MERGED: [seen_from(output.location, split.location) for split in splits]},
        "fingerprint": samples.make_fingerprint([shard for split in splits for shard in split.shards()]),
        "counts": add_counts(splits) | samples.count_frames(splits),
        "label_names": first["label_names"],
        "parts": parts,
        "files": files,
        **({"sums": sums} if (sums := add_sums(splits)) else {}),
        **join_curations(output, list_own_curations(current or {}), curated),
        **fields,
    }
    if TOKENIZER in first:
        info[TOKENIZER] = first[TOKENIZER]
        files[first[TOKENIZER]] = first["files"][first[TOKENIZER]]
    if current is not None and _is_same_version(output, current, info, samples, len(rejects)):
        return current
    for name, data in find_tokenizer_files(splits[0].store, first).items():
        output.publish(name, data)
    info = publish_samples(output, info, samples, rejects)
    publish_version(output, info)
    return info


def _locate_folder(split: Manifest, part: str) -> str:
    """Return the location of the folder of a split's part."""
    return joined(split.location, get_folder_name(part)) if is_elsewhere(part) else split.location


def _check_merged(output: Output) -> None:
    info = read_description(output.store)
    away = all(is_elsewhere(part["name"]) for part in info["parts"])
    if HELD_OUT_OF in info or MERGED not in info["settings"] or not away:
        raise DatasetError(f"{output.location} is a split with its own shards; choose a different folder to merge into")


def _is_same_version(output: Output, before: Json, info: Json, samples: SampleTable, rejects: int) -> bool:
    """Return whether a version has the described parts, these samples, and this number of rejects."""
    names = ("parts", "settings", "fingerprint", "label_names", TOKENIZER, CURATIONS)
    return (
        all(before.get(name) == info.get(name) for name in names)
        and all(before["files"].get(name) == facts for name, facts in info["files"].items())
        and before["counts"]["rejects"] == rejects
        and np.array_equal(SampleTable.read(output.store, before).kept, samples.kept)
    )


def _is_openable(output: Output, version: int | None) -> bool:
    """Return whether all parts of a version exist unchanged."""
    with suppress(ShardError):
        info = read_description(output.store, version)
        store = open_merged_store(output.store, None)
        for part in info["parts"]:
            read_checked(store, part["name"], info["files"])
        return True
    return False


def tidy(output: Output) -> None:
    """Delete the versions that can no longer be read, and files that no version refers to."""
    current = read_description(output.store)
    kept = {*current["files"], name_version(current["version"])}
    for version in list_versions(output.store):
        if version != current["version"] and _is_openable(output, version):
            kept |= {*read_description(output.store, version)["files"], name_version(version)}
    if find_tokenizer_name(current) != TOKENIZER_JSON:
        output.remove([TOKENIZER_JSON])
    output.remove([name for name in output.names() if is_index(name) and name not in kept])


def _shown(split: Manifest) -> str:
    names = split.info["label_names"]
    return f"{list_few(names, repr)} ({len(names)})" if names else "none"
