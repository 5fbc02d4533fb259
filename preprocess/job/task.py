"""Work of a shard task: encode its sources and write its tar."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import chain
from math import isfinite
from pathlib import PurePosixPath
from typing import Any

from maskstream.preprocess.encode.encoder import Encoder
from maskstream.preprocess.encode.limits import limited
from maskstream.preprocess.executors.base import Again, Attempt, Report
from maskstream.preprocess.raw.file_state import FileState
from maskstream.preprocess.raw.files import Hand
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.errors import ShardError
from maskstream.shards.format.records import ShardRecord
from maskstream.shards.format.sample import Reject, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.text import json_member
from maskstream.shards.stores.block_sums import SUMS
from maskstream.shards.stores.output import Sizes

from .judge import UNKEPT, Judge, Judged
from .plan import Measure, ShardTask, sample_key
from .report import Effort, EffortClock


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenShard:
    """Record of a shard task.

    Attributes:
        shard: The shard; None, without a tar, if every source was rejected.
        rejects: Rejected sources.
        sources: States of each source's files when it was encoded, in the task's order.
        effort: Cost of the task; None in records of earlier versions.
        unkept: Samples that a rule left out, which do not count as rejects.
    """

    shard: ShardRecord | None
    rejects: tuple[Reject, ...] = ()
    sources: tuple[tuple[FileState, ...], ...] = ()
    effort: Effort | None = None
    unkept: tuple[Reject, ...] = ()

    def to_parts(self) -> list[dict[str, Any]]:
        read = {
            "sources": [[state.to_json() for state in files] for files in self.sources],
            "rejects": [asdict(reject) for reject in self.rejects],
        }
        if self.unkept:
            read[UNKEPT] = [asdict(one) for one in self.unkept]
        written = {"shard": None if self.shard is None else self.shard.to_json()}
        return [read, written, *([] if self.effort is None else [self.effort.to_json()])]

    @classmethod
    def from_parts(cls, parts: Sequence[dict[str, Any]]) -> WrittenShard:
        read, written, *others = parts
        shard = None if written["shard"] is None else ShardRecord.from_json(written["shard"])
        effort = Effort.from_json(others[0]) if others else None
        return cls(
            shard=shard,
            rejects=read_recorded_rejects(read),
            sources=read_recorded_sources(read),
            effort=effort,
            unkept=read_recorded_unkept(read),
        )

    def stands(self, sizes: Sizes) -> bool:
        """Return whether the output has the tar at its recorded size, its idx and its checksums."""
        if self.shard is None:
            return True
        tar, index, sums = shard_files(self.shard.name)
        beside = all(sizes.size(name) is not None for name in (index, sums))
        return beside and sizes.size(tar) == self.shard.size_bytes


def shard_files(tar: str) -> tuple[str, str, str]:
    """Return the names of a shard's files: the tar, its idx and its checksums."""
    return tar, str(PurePosixPath(tar).with_suffix(".idx")), str(PurePosixPath(tar).with_suffix(SUMS))


def read_recorded_rejects(read: dict[str, Any]) -> tuple[Reject, ...]:
    """Parse the rejects in the first part of a record."""
    return tuple(Reject(**reject) for reject in read["rejects"])


def read_recorded_unkept(read: dict[str, Any]) -> tuple[Reject, ...]:
    """Parse the samples left out by a rule in the first part of a record."""
    return tuple(Reject(**one) for one in read.get(UNKEPT, ()))


def read_recorded_sources(read: dict[str, Any]) -> tuple[tuple[FileState, ...], ...]:
    """Parse the states of the sources in the first part of a record."""
    return tuple(tuple(map(FileState.from_json, files)) for files in read["sources"])


def write_task(task: ShardTask, report: Report) -> WrittenShard:
    """Write the shard of `task`, calling `report` with a source's id before encoding it and with "" after.

    A source that crashed a process before is encoded first, alone in a fresh process.

    Raises:
        OutageError: A source cannot be read.
        ShardError: The replacement of a damaged shard has other bytes.
    """
    clock = EffortClock()

    def counted(note: str | Attempt | Again) -> None:
        clock.retries += isinstance(note, Again)
        report(note)

    rejects: list[Reject] = []
    sources: list[tuple[FileState, ...]] = []
    with task.files.at_hand() as hand, closing(_samples(task, hand, rejects, sources, counted)) as samples:
        first = next(samples, None)
        if first is None and task.sha256 is not None:
            raise ShardError(f"{task.name}: none of its sources can be used now, so the damaged shard was not replaced")
        shard = None if first is None else write_shard(task.path, chain([first], samples), task.sha256)
    for source in task.sources:
        if source.kept is not None:
            source.kept.unlink(missing_ok=True)
    return WrittenShard(
        shard=shard,
        rejects=tuple(one for one in rejects if one.stage != UNKEPT),
        sources=tuple(sources),
        effort=clock.effort(),
        unkept=tuple(one for one in rejects if one.stage == UNKEPT),
    )


def _samples(
    task: ShardTask, hand: Hand, rejects: list[Reject], sources: list[tuple[FileState, ...]], report: Report
) -> Generator[Sample, None, None]:
    """Yield the samples of the task; `sources` receives the states of each source's files."""
    judge = Judge(task.pauses_s, read=hand.read)
    by_id = {source.id: source for source in task.sources}
    tried: dict[str, Judged] = {}
    for name in task.crashes.suspects:
        tried[name] = _judge_source(judge, hand, by_id[name], None, task, report)
    todo = [source for source in task.sources if source.id not in tried]
    following = dict(zip((source.id for source in todo), (*todo[1:], None), strict=True)) if todo else {}
    for source in task.sources:
        judged = tried.pop(source.id, None) or _judge_source(judge, hand, source, following[source.id], task, report)
        sources.append(judged.files)
        if isinstance(judged.outcome, Reject):
            rejects.append(judged.outcome)
        else:
            yield judged.outcome
        report("")


def _judge_source(
    judge: Judge, hand: Hand, source: Source, following: Source | None, task: ShardTask, report: Report
) -> Judged:
    """Judge a source while the files of the `following` one are fetched."""
    report(source.id)
    if following is not None:
        hand.expect(following)
    try:
        here = hand.located(source)
        return judge.judge(here, lambda source: _try_encoding(source, task, report), lambda why: report(Again(why)))
    except Exception as error:
        error.add_note(f"while encoding the source {source.id!r}, {source.path}")
        raise
    finally:
        judge.forget(hand.release(source, following))


def _try_encoding(source: Source, task: ShardTask, report: Report) -> Sample:
    """Encode a source within the task's limits. Reading its files does not count, since a slow disk is not its
    fault.
    """
    task.crashes.check(source.id)
    try:
        with limited(source.id, task.limits, report, size_bytes=_size(source)):
            sample = encode_sample(source, task.encoder, task.measure)
            if task.keep is not None and (why := task.keep.explain_unmet(sample.members)):
                raise RejectError(UNKEPT, why)
            return sample
    finally:
        report(source.id)


def _size(source: Source) -> int:
    """Return the total size of a source's files in bytes; 0 if one cannot be read, which the judge reports."""
    try:
        return sum(os.stat(path).st_size for path in source.files)
    except OSError:
        return 0


def encode_sample(source: Source, encoder: Encoder, measure: Measure | None = None) -> Sample:
    """Encode a source into a sample: the encoder's members and `json`, which has the signals of `measure` and the
    encoder.

    Raises:
        RejectError: The source cannot be encoded.
    """
    encoded = encoder.encode(source)
    for name, values in encoded.sums.items():
        if not all(map(isfinite, values)):
            raise RejectError("check", f"its numbers are too large: the sums {name!r} over them are {values}")
    signals = {} if measure is None else {**measure.of(encoded.members, encoded.pixels), **encoded.signals}
    about = json_member({"label": source.label, "source": source.id, **source.meta, **encoded.meta}, signals)
    return Sample(
        key=sample_key(source.id),
        members={**encoded.members, "json": about},
        source=source.id,
        label=source.label,
        sums=encoded.sums,
    )
