"""The work of one shard task: encode its sources and write its tar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ..shards.format.record import ShardRecord
from ..shards.format.sample import Reject, Sample
from ..shards.format.writer import write_shard
from ..shards.members.text import json_member
from ..shards.stores.block_sums import SUMS
from .encode.encoder import Encoder
from .executors.base import Report
from .judge import Judge
from .plan import ShardTask, sample_key
from .source import Source


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenShard:
    """The record of a shard task: the shard and the rejects. The shard is None, without a tar, if every source was
    rejected.
    """

    shard: ShardRecord | None
    rejects: tuple[Reject, ...] = ()

    def to_json(self) -> dict[str, Any]:
        shard = None if self.shard is None else self.shard.to_json()
        return {"shard": shard, "rejects": [asdict(reject) for reject in self.rejects]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> WrittenShard:
        shard = None if data["shard"] is None else ShardRecord.from_json(data["shard"])
        return cls(shard=shard, rejects=tuple(Reject(**reject) for reject in data["rejects"]))

    def stands(self, folder: Path) -> bool:
        """Whether the folder holds the tar at its recorded size, its idx and its checksums."""
        if self.shard is None:
            return True
        tar = folder / self.shard.name
        beside = all(tar.with_suffix(suffix).is_file() for suffix in (".idx", SUMS))
        return beside and tar.is_file() and tar.stat().st_size == self.shard.size_bytes


def write_task(task: ShardTask, report: Report) -> WrittenShard:
    """Write the shard of `task`. Calls `report` with a source's id before encoding it and with "" after.

    Raises OutageError if a source cannot be read.
    """
    rejects: list[Reject] = []
    samples = _samples(task, rejects, report)
    first = next(samples, None)
    if first is None:
        return WrittenShard(shard=None, rejects=tuple(rejects))
    shard = write_shard(task.path, chain([first], samples))
    return WrittenShard(shard=shard, rejects=tuple(rejects))


def _samples(task: ShardTask, rejects: list[Reject], report: Report) -> Iterator[Sample]:
    judge = Judge(task.pauses_s)
    for source in task.sources:
        report(source.id)
        try:
            judged = judge.judge(source, lambda source: encoded_sample(source, task.encoder), report)
        except Exception as error:
            error.add_note(f"while encoding the source {source.id!r}, {source.path}")
            raise
        if isinstance(judged.outcome, Reject):
            rejects.append(judged.outcome)
        else:
            yield judged.outcome
        report("")


def encoded_sample(source: Source, encoder: Encoder) -> Sample:
    """Encode a source into a sample: the encoder's members and `json`. Raises RejectError if that is impossible."""
    encoded = encoder.encode(source)
    meta = {"label": source.label, "source": source.id, **source.meta, **encoded.meta}
    return Sample(
        key=sample_key(source.id),
        members={**encoded.members, "json": json_member(meta)},
        source=source.id,
        label=source.label,
        sums=encoded.sums,
    )
