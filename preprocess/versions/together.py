"""What the description of a split says that is made of several: counts, sums, rejects and removed samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.shards.format.checked_file import facts_of
from maskstream.shards.format.columns import rejects_table
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.part_writer import parquet_bytes
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.format.removed import REMOVED, removed_bytes, removed_name
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
