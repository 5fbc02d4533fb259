"""The table of the samples in all parts of a split, with a column `kept`: whether a version keeps each of them.

Every edit of a split changes this column and stores it with a new version. A removal, a curation or an erasure marks
samples, a division marks those that another split has, and a merge or an append joins the tables of several splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from maskstream.shards.arrays import Int64s, UInt8s
from maskstream.shards.format.checked_file import facts_of
from maskstream.shards.format.columns import ShardFacts, build_rejects_table, make_fingerprint
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.part_writer import encode_parquet
from maskstream.shards.format.rejects import (
    CURATED,
    REMOVED,
    SELECTED,
    count_part_samples,
    encode_numbers,
    read_curated,
    read_removed,
    read_selected,
)
from maskstream.shards.format.sample import Reject
from maskstream.shards.format.tokenizer import TOKENIZER
from maskstream.shards.members.video import VIDEO
from maskstream.shards.stores.base import Store
from maskstream.shards.stores.output import Output

Json = dict[str, Any]
REJECTS = "rejects"


class Kept(IntEnum):
    """Whether a version keeps a sample. If there are several reasons not to, the largest one counts.

    Attributes:
        YES: The version has the sample.
        CURATED: Only a curation left it out; earlier versions may have it.
        REMOVED: It was removed or erased.
        ELSEWHERE: Another split has it, since a division.
    """

    YES = 0
    CURATED = 1
    REMOVED = 2
    ELSEWHERE = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SampleTable:
    """The samples of all parts of a split, as a version keeps them.

    Attributes:
        kept: `Kept` of each sample, uint8 (N,).
        divided: Whether the version lists its samples, because another split may have others of the same parts.
    """

    kept: UInt8s
    divided: bool = False

    @classmethod
    def read(cls, store: Store, info: Mapping[str, Any]) -> SampleTable:
        """Read the table of the version with this description. Raises ShardError if it cannot be read."""
        kept, selected = np.zeros(count_part_samples(info), np.uint8), read_selected(store, info)
        kept[read_removed(store, info)] = Kept.REMOVED
        kept[read_curated(store, info)] = Kept.CURATED
        if selected is not None:
            kept[np.setdiff1d(np.arange(len(kept)), selected, assume_unique=True)] = Kept.ELSEWHERE
        return cls(kept=kept, divided=selected is not None)

    @classmethod
    def join(cls, splits: Sequence[Manifest]) -> SampleTable:
        """Join the tables of several splits, one after the other."""
        tables = [cls.read(split.store, split.info) for split in splits]
        return cls(kept=np.concatenate([one.kept for one in tables]), divided=any(one.divided for one in tables))

    def mark(self, numbers: Int64s, why: Kept) -> SampleTable:
        """Return the table with a reason not to keep these samples, unless they have a larger one."""
        kept = self.kept.copy()
        kept[numbers] = np.maximum(kept[numbers], why)
        return SampleTable(kept=kept, divided=self.divided or why == Kept.ELSEWHERE)

    def find(self, *states: Kept) -> Int64s:
        """Return the sorted numbers of the samples in one of these states, int64 (n,)."""
        return np.flatnonzero(np.isin(self.kept, states))

    @property
    def removed(self) -> Int64s:
        """Numbers of the removed and curated samples, int64 (n,)."""
        return self.find(Kept.CURATED, Kept.REMOVED)

    @property
    def own(self) -> Int64s:
        """Numbers of the samples that no other split has, int64 (n,)."""
        return np.flatnonzero(self.kept != Kept.ELSEWHERE)

    def make_fingerprint(self, shards: Sequence[ShardFacts]) -> str:
        """Return the fingerprint of a split with these samples; see `make_fingerprint`."""
        return make_fingerprint(shards, foreign=False, selected=self.own if self.divided else None)

    def count_frames(self, splits: Sequence[Manifest]) -> dict[str, int]:
        """Return the count of the video frames of splits, opened whole, whose tables are joined; {} without videos."""
        own, start, total = self.kept != Kept.ELSEWHERE, 0, list[int]()
        for split in splits:
            mine, start = own[start : start + len(split)], start + len(split)
            videos = (one.facts["n_frames"] for one in split.components.values() if one.kind == VIDEO.name)
            total += [int(n_frames[mine].sum()) for n_frames in videos]
        return {"frames": sum(total)} if total else {}


def publish_samples(
    output: Output,
    info: Json,
    samples: SampleTable,
    rejects: Sequence[Reject] | None = None,
    erasure: int = 0,
) -> Json:
    """Write the files with the samples of a version, and return its description with these files and counts.

    Files whose contents stay the same keep their names. Files that the version does not use are left out.

    Args:
        output: The split.
        info: Description of the version, with the files of the version before.
        samples: Samples of the version.
        rejects: Rejects of the version; None keeps those in `info`.
        erasure: Number of the version for which an earlier version is rewritten; 0 for none.
    """
    curated, removed = samples.find(Kept.CURATED), samples.removed
    found = {} if rejects is None else {REJECTS: encode_parquet(build_rejects_table(rejects))}
    if len(removed):
        found[REMOVED] = encode_numbers(removed, curated)
    if samples.divided:
        found[SELECTED] = encode_numbers(samples.own)
    numbers = dict.fromkeys((erasure or info["version"], info["version"]))
    ending = "".join(f"-{number:06d}" for number in numbers)
    described = {name: value for name, value in info.items() if name not in (REMOVED, SELECTED)}
    files = dict(info["files"])
    for what, data in found.items():
        described[what], facts = info.get(what), facts_of(data)
        if files.get(described[what]) != facts:
            described[what] = name = f"{what}{ending}.parquet"
            output.publish(name, data)
            files[name] = facts
    counts = {name: count for name, count in info["counts"].items() if name not in (REMOVED, CURATED)}
    counts |= {"samples": len(samples.own)} | ({} if rejects is None else {REJECTS: len(rejects)})
    counts |= {name: len(some) for name, some in ((REMOVED, removed), (CURATED, curated)) if len(some)}
    used = {part["name"] for part in info["parts"]} | {
        described.get(what) for what in (REJECTS, REMOVED, SELECTED, TOKENIZER)
    }
    return described | {"counts": counts, "files": {name: one for name, one in files.items() if name in used}}
