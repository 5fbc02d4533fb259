"""Takes what a split's records say of erased samples out of them, and reads the states of sources that they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

import xxhash

from maskstream.preprocess.job.task import WrittenShard
from maskstream.preprocess.raw.file_state import FileState
from maskstream.shards.format.record import Row, ShardRecord
from maskstream.shards.format.records import Records
from maskstream.shards.format.removed import erased_key
from maskstream.shards.format.sample import Reject
from maskstream.shards.format.shard_facts import ShardFacts
from maskstream.shards.stores.output import Output

from .erased_words import ErasedWords

States = tuple[FileState, ...]


def states_of(records: Records[WrittenShard]) -> Iterator[tuple[str, States]]:
    """Each source of which the records tell the states, and these."""
    for task in records.tasks():
        found = records.read(task)
        if found is not None and (places := places_of(found)) is not None:
            yield from ((name, found.sources[place]) for name, place in places.items())


def places_of(record: WrittenShard) -> dict[str, int] | None:
    """Where the states of each source are in a record; None if that cannot be told.

    They are in the order of the plan, by a hash of the sources' ids. Those of erased samples are empty.
    """
    ids = [reject.source for reject in record.rejects]
    ids += [row.source for row in record.shard.rows if row.source] if record.shard is not None else []
    places = [number for number, files in enumerate(record.sources) if files]
    ordered = sorted(ids, key=lambda name: (xxhash.xxh3_64_intdigest(name.encode()), name))
    return dict(zip(ordered, places, strict=True)) if len(places) == len(ordered) else None


def scrub_records(
    output: Output,
    shards: Mapping[str, ShardFacts],
    keys: AbstractSet[str],
    sources: AbstractSet[str],
    words: ErasedWords,
) -> None:
    """Write the records again whose shards were written again, and those that name an erased sample, its source or
    a label that only it had.

    shards: the facts of the shards that were written again, by the names that they had.
    """
    records = Records(output, WrittenShard)
    for task in records.tasks():
        found = records.read(task)
        if found is not None and (scrubbed := _scrubbed(found, shards, keys, sources)) != found:
            records.record(task, scrubbed)
    about = records.description()
    if about is not None:
        missing = [one for one in about["missing"] if not names_one(Reject(**one), keys, sources)]
        without = about | {"missing": missing, "label_names": words.label_names(about["label_names"])}
        if without != about:
            records.describe(without)


def names_one(reject: Reject, keys: AbstractSet[str], sources: AbstractSet[str]) -> bool:
    """Whether a reject names an erased sample or its source."""
    return reject.source in sources or any(name and name in reject.reason for name in (*keys, *sources))


def _scrubbed(
    record: WrittenShard, shards: Mapping[str, ShardFacts], keys: AbstractSet[str], sources: AbstractSet[str]
) -> WrittenShard:
    shard = record.shard
    states = _states(record, sources)
    rejects = tuple(reject for reject in record.rejects if not names_one(reject, keys, sources))
    if shard is not None and shard.name in shards:
        facts = shards[shard.name]
        first = (facts.written or ("", facts.sha256))[1]
        rows = tuple(_row(row, number, first) if row.key in keys else row for number, row in enumerate(shard.rows))
        shard = ShardRecord(facts.name, facts.sha256, facts.size_bytes, rows)
    return replace(record, shard=shard, rejects=rejects, sources=states)


def _row(row: Row, number: int, sha256: str) -> Row:
    return Row(key=erased_key(sha256, number), label=-1, source="", members={})


def _states(record: WrittenShard, sources: AbstractSet[str]) -> tuple[tuple[FileState, ...], ...]:
    """The states of the sources' files, empty for those that are erased; all are empty if it cannot be told which."""
    ids = {reject.source for reject in record.rejects}
    ids |= {row.source for row in record.shard.rows} if record.shard is not None else set()
    if not sources & ids:
        return record.sources
    places = places_of(record)
    if places is None:
        return ((),) * len(record.sources)
    empty = {place for name, place in places.items() if name in sources}
    return tuple(() if number in empty else files for number, files in enumerate(record.sources))
