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
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.shards.errors import DatasetError, ShardError
from maskstream.shards.format.checked_file import facts_of, read_checked
from maskstream.shards.format.columns import FORMAT, build_rejects_table, make_fingerprint
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
from maskstream.shards.format.part_writer import encode_parquet, find_repeated_keys, hash_keys
from maskstream.shards.format.rejects import (
    REMOVED,
    SELECTED,
    count_part_samples,
    count_removed,
    encode_numbers,
    name_removed_file,
    name_selected_file,
    read_curated,
    read_rejects,
    read_removed,
    read_selected,
)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Removed:
    """Removed samples.

    Attributes:
        numbers: Their numbers among the samples of all parts, sorted, int64 (R,).
        curated: The numbers that only a curation left out, sorted, int64.
    """

    numbers: npt.NDArray[np.int64]
    curated: npt.NDArray[np.int64]


def join_numbers(splits: Sequence[Manifest], numbers: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Map sample numbers of each split, opened whole, to numbers in their concatenation."""
    starts = np.cumsum([0, *map(len, splits)])
    return np.concatenate([own + start for own, start in zip(numbers, starts[:-1], strict=True)])


def join_selected(splits: Sequence[Manifest]) -> npt.NDArray[np.int64] | None:
    """Return the selected samples of splits as numbers in their concatenation; None for all."""
    found = [read_selected(split.store, split.info) for split in splits]
    if all(one is None for one in found):
        return None
    return join_numbers(
        splits, [np.arange(len(split)) if one is None else one for split, one in zip(splits, found, strict=True)]
    )


def join_removed(splits: Sequence[Manifest]) -> Removed:
    """Return the removed samples of several splits, numbered as in the joint split."""
    return Removed(
        numbers=join_numbers(splits, [split.removed for split in splits]),
        curated=join_numbers(splits, [read_curated(split.store, split.info) for split in splits]),
    )


def join_curations(
    output: Output, records: Sequence[dict[str, Any]], splits: Sequence[Manifest]
) -> dict[str, list[dict[str, Any]]]:
    """Return the records of curations as a field of a description; empty without any.

    Args:
        output: The new split.
        records: The records that it keeps.
        splits: The merged or appended splits. Each of their records gets the folder of its split.
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


def publish_rejects_and_removed(
    output: Output,
    version: int,
    splits: Sequence[Manifest],
    removed: Removed,
    retried: AbstractSet[str] = frozenset(),
) -> dict[str, Any]:
    """Write the rejects, removed samples and selected samples of splits, and return their entries for the description.

    Args:
        output: The joint split.
        version: Version of the joint split.
        splits: The splits, opened whole.
        removed: Removed samples.
        retried: Sources that the last split has tried again, whose rejects in the others no longer count.
    """
    rejects = [
        reject
        for split in splits
        for reject in read_rejects(split.store, split.info)
        if split is splits[-1] or reject.source not in retried
    ]
    rejects.sort(key=lambda reject: (reject.source, reject.stage, reject.reason))
    selected = join_selected(splits)
    names = {"rejects": f"rejects-{version:06d}.parquet"}
    written = {names["rejects"]: encode_parquet(build_rejects_table(rejects))}
    if len(removed.numbers):
        names[REMOVED] = name_removed_file(version)
        written[names[REMOVED]] = encode_numbers(removed.numbers, removed.curated)
    if selected is not None:
        names[SELECTED] = name_selected_file(version)
        written[names[SELECTED]] = encode_numbers(selected)
    for name, data in written.items():
        output.publish(name, data)
    files = {name: facts_of(data) for name, data in written.items()}
    counts = count_removed(add_counts(splits), removed.numbers, removed.curated)
    return names | {"files": files, "counts": counts | {"rejects": len(rejects)}}


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
    place = joined(split.location, get_folder_name(part)) if is_elsewhere(part) else split.location
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
    longer be read are then deleted. Samples removed from the merged split itself stay removed.

    Args:
        out: Location of the merged split.
        splits: Locations of at least two splits.

    Raises:
        ValueError: There are fewer than two splits, or `out` cannot refer to one.
        DatasetError: The splits differ in modality, profile, encoder settings, labels or components, or share keys, or
            `out` has shards of its own.
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
        current = _current(output)
        removed = join_removed(found)
        if current is not None:
            removed = _keep_removed(output, found, current, folders, removed)
        description = _describe_merged(output, found, folders, removed, _find_next_version(current))
        description |= join_curations(output, list_own_curations(current or {}), found)
        if current is None or not (_is_same_version(current, description) and _is_openable(output, None)):
            current = _publish(output, found, removed, description)
        tidy(output)  # including leftovers of a killed merge
    return _report(current)


def _keep_removed(
    output: Output, found: Sequence[Manifest], current: Mapping[str, Any], folders: Sequence[str], removed: Removed
) -> Removed:
    """Add the samples that were removed from the merged split itself."""
    numbers, curated = read_removed(output.store, current), read_curated(output.store, current)
    if len(numbers) and (folders != current["settings"][MERGED] or count_part_samples(current) != sum(map(len, found))):
        # The splits are different ones or have grown, so sample numbers have changed; an erasure alone changes none.
        if not _is_openable(output, None):
            raise DatasetError(
                f"{output.location} has {len(numbers)} removed samples, and its splits have gained or lost samples "
                "since, some by an erasure. Merge into a different folder and remove the samples there"
            )
        before = Manifest.open(output.store, whole=True)
        keys = (key for split in found for some in read_keys(split) for key in some)
        wanted = {*before.keys(numbers.tolist())}
        places = {key: number for number, key in enumerate(keys) if key in wanted}
        numbers, curated = (
            np.array(sorted(places[key] for key in before.keys(some.tolist()) if key in places), np.int64)
            for some in (numbers, curated)
        )
    for_good = np.union1d(np.setdiff1d(removed.numbers, removed.curated), np.setdiff1d(numbers, curated))
    return Removed(
        numbers=np.union1d(removed.numbers, numbers),
        curated=np.setdiff1d(np.union1d(removed.curated, curated), for_good),
    )


def _publish(output: Output, found: list[Manifest], removed: Removed, description: dict[str, Any]) -> dict[str, Any]:
    """Make the description current, and return it with its rejects and removed samples."""
    written = publish_rejects_and_removed(output, description["version"], found, removed)
    description = description | written | {"files": {**description["files"], **written["files"]}}
    for name, data in find_tokenizer_files(found[0].store, found[0].info).items():
        output.publish(name, data)
    publish_version(output, description)
    return description


def _describe_merged(
    output: Output, found: list[Manifest], folders: list[str], removed: Removed, version: int
) -> dict[str, Any]:
    """Return the description without rejects and removed samples."""
    first = found[0].info
    parts, files = [], {}
    for one in found:
        for part in one.info["parts"]:
            name = name_part(output, one, part["name"])
            parts.append(part | {"name": name})
            files[name] = one.info["files"][part["name"]]
    encoder = {"encoder": first["settings"]["encoder"]} if "encoder" in first["settings"] else {}
    described = {
        "format": FORMAT,
        "version": version,
        "dataset": "+".join(dict.fromkeys(one.info["dataset"] for one in found)),
        "split": first["split"],
        "modality": first["modality"],
        "profile": first["profile"],
        "settings": encoder | {MERGED: folders},
        "fingerprint": make_fingerprint(
            [shard for one in found for shard in one.shards()], foreign=False, selected=join_selected(found)
        ),
        "counts": count_removed(add_counts(found), removed.numbers, removed.curated),
        "label_names": first["label_names"],
        "parts": parts,
        "files": files,
    }
    if TOKENIZER in first:
        described[TOKENIZER] = first[TOKENIZER]
        files[first[TOKENIZER]] = first["files"][first[TOKENIZER]]
    return described | ({"sums": sums} if (sums := add_sums(found)) else {})


def name_part(output: Output, split: Manifest, part: str) -> str:
    """Return the name of a split's part as seen from `output`."""
    place = joined(split.location, get_folder_name(part)) if is_elsewhere(part) else split.location
    return f"{seen_from(output.location, place)}/{file_name(part)}"


def _check_merged(output: Output) -> None:
    info = read_description(output.store)
    away = all(is_elsewhere(part["name"]) for part in info["parts"])
    if HELD_OUT_OF in info or MERGED not in info["settings"] or not away:
        raise DatasetError(f"{output.location} is a split with its own shards; choose a different folder to merge into")


def _current(output: Output) -> dict[str, Any] | None:
    return read_description(output.store) if is_split(output.store) else None


def _find_next_version(current: dict[str, Any] | None) -> int:
    return 1 if current is None else int(current["version"]) + 1


def _is_same_version(before: dict[str, Any], description: dict[str, Any]) -> bool:
    """Return whether a version has the same parts and counts, which include removed samples and rejects."""
    names = ("parts", "counts", "settings", "fingerprint", "label_names", TOKENIZER, CURATIONS)
    return all(before.get(name) == description.get(name) for name in names) and all(
        before["files"].get(name) == facts for name, facts in description["files"].items()
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


def _report(info: dict[str, Any]) -> Merged:
    return Merged(version=info["version"], samples=info["counts"]["samples"], shards=info["counts"]["shards"])
