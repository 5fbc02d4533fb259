"""Whether splits can be one, and what the description of the one says: counts, sums, rejects, removed samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.shards.errors import DatasetError
from maskstream.shards.format.checked_file import facts_of
from maskstream.shards.format.columns import rejects_table
from maskstream.shards.format.dataset import FOREIGN
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.part_writer import parquet_bytes
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.format.removed import REMOVED, removed_bytes, removed_name
from maskstream.shards.format.unique_keys import hashes_of, repeated_keys
from maskstream.shards.stores.output import Output


def counts_of(splits: Sequence[Manifest]) -> dict[str, int]:
    """The sums of the counts."""
    names = dict.fromkeys(name for split in splits for name in split.info["counts"])
    return {name: sum(split.info["counts"].get(name, 0) for split in splits) for name in names}


def sums_of(splits: Sequence[Manifest]) -> dict[str, list[float]]:
    """The sums over all samples; none if a split lacks some."""
    sums = [split.info.get("sums", {}) for split in splits]
    if any(one.keys() != sums[0].keys() for one in sums):
        return {}
    return {name: [math.fsum(values) for values in zip(*(one[name] for one in sums), strict=True)] for name in sums[0]}


def removed_of(splits: Sequence[Manifest]) -> npt.NDArray[np.int64]:
    """The numbers of the removed samples in the split that is made of these, one after the other."""
    starts = np.cumsum([0, *map(len, splits)])
    return np.concatenate([split.removed + start for split, start in zip(splits, starts[:-1], strict=True)])


def publish_rejects_and_removed(
    output: Output, version: int, splits: Sequence[Manifest], retried: AbstractSet[str] = frozenset()
) -> dict[str, Any]:
    """Write the rejects and the removed samples of all splits; returns what a description says of them.

    retried: sources that the last split has tried again, so that what the others say of them does not count.
    """
    rejects = [
        reject
        for split in splits
        for reject in read_rejects(split.store, split.info)
        if split is splits[-1] or reject.source not in retried
    ]
    rejects.sort(key=lambda reject: (reject.source, reject.stage, reject.reason))
    removed = removed_of(splits)
    names = {"rejects": f"rejects-{version:06d}.parquet"}
    written = {names["rejects"]: parquet_bytes(rejects_table(rejects))}
    if len(removed):
        names[REMOVED] = removed_name(version)
        written[names[REMOVED]] = removed_bytes(removed)
    for name, data in written.items():
        output.publish(name, data)
    files = {name: facts_of(data) for name, data in written.items()}
    return names | {"files": files, "counts": counts_of(splits) | {"rejects": len(rejects)}}


_AT_ONCE = 1 << 16
_SHOWN = 3


def check_fit(ours: Manifest, theirs: Manifest) -> None:
    """Raise DatasetError, which says what differs, if two splits cannot be one. Labels and keys are not compared."""
    if FOREIGN in (ours.info["profile"], theirs.info["profile"]):
        raise DatasetError(
            "an index of foreign tars is neither appended nor merged; index all tars together with `maskstream index`"
        )
    for what in ("modality", "profile"):
        if ours.info[what] != theirs.info[what]:
            raise DatasetError(
                f"{theirs.location} has the {what} {theirs.info[what]!r}, and {ours.location} has "
                f"{ours.info[what]!r}; make both alike with `maskstream shards`"
            )
    encoders = [one.info["settings"].get("encoder") for one in (ours, theirs)]
    if encoders[0] != encoders[1]:
        raise DatasetError(
            f"{theirs.location} was encoded with {encoders[1]}, and {ours.location} with {encoders[0]}; make both "
            "alike with `maskstream shards`"
        )
    for name in ours.components.keys() & theirs.components.keys():
        kinds = ours.components[name].kind, theirs.components[name].kind
        if kinds[0] != kinds[1]:
            raise DatasetError(
                f"component {name!r} is {kinds[1]} in {theirs.location}, and {kinds[0]} in {ours.location}"
            )


def check_distinct(splits: Sequence[Manifest]) -> None:
    """Raise DatasetError if a split is given twice."""
    places = [split.location for split in splits]
    if again := [place for n, place in enumerate(places) if place in places[:n]]:
        raise DatasetError(f"{again[0]} is given twice; give each split once")


def check_keys(splits: Sequence[Manifest]) -> None:
    """Raise DatasetError, which names keys and splits, if a key is in two splits."""
    check_distinct(splits)
    hashes = [hashes_of(keys) for split in splits for keys in keys_of(split)]
    twice = repeated_keys(hashes, (keys for split in splits for keys in keys_of(split)))
    if not twice:
        return
    where = [split.location for split in splits if any(twice[0] in keys for keys in keys_of(split))]
    shown = ", ".join(map(repr, twice[:_SHOWN])) + (", ..." if len(twice) > _SHOWN else "")
    raise DatasetError(
        f"{len(twice)} keys are in more than one split, {twice[0]!r} in both {where[0]} and {where[-1]}: {shown}"
    )


def keys_of(manifest: Manifest) -> Iterator[list[str]]:
    """The keys of all samples, group by group."""
    for begin in range(0, len(manifest), _AT_ONCE):
        yield manifest.keys(range(begin, min(begin + _AT_ONCE, len(manifest))))
