"""Rewrite the descriptions of all versions of a split after samples were erased, describe the new version, and remove
the samples from the split's records.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import xxhash

from maskstream.preprocess.job.task import WrittenShard
from maskstream.preprocess.raw.file_state import FileState
from maskstream.shards.arrays import Int64s
from maskstream.shards.checksummed import add_checksum
from maskstream.shards.format.checked_file import SUM, facts_of
from maskstream.shards.format.columns import ShardFacts
from maskstream.shards.format.dataset import DATASET_JSON, VERSIONS, name_version, publish_version, sum_of_version
from maskstream.shards.format.part_writer import parse_part_number, part_name
from maskstream.shards.format.records import RECORDS, Records, Row, ShardRecord
from maskstream.shards.format.rejects import (
    hash_erased_key,
    read_rejects,
)
from maskstream.shards.format.sample import Reject
from maskstream.shards.format.tokenizer import TOKENIZER, name_erased_tokenizer
from maskstream.shards.stores.output import Output

from .erased_words import ErasedWords
from .samples import Json, Kept, SampleTable, publish_samples

States = tuple[FileState, ...]
_MOST_BYTES = 1 << 32


def list_recorded_states(records: Records[WrittenShard]) -> Iterator[tuple[str, States]]:
    """Yield each source whose file states are in the records, with these states."""
    for task in records.tasks():
        found = records.read(task)
        if found is not None and (places := find_state_places(found)) is not None:
            yield from ((name, found.sources[place]) for name, place in places.items())


def find_state_places(record: WrittenShard) -> dict[str, int] | None:
    """Return the position of each source's states in a record; None if they cannot be assigned.

    They are in the order of the plan, by a hash of the sources' ids. The states of erased samples are empty.
    """
    ids = [reject.source for reject in record.rejects]
    ids += [one.source for one in record.unkept]
    ids += [row.source for row in record.shard.rows if row.source] if record.shard is not None else []
    places = [number for number, files in enumerate(record.sources) if files]
    ordered = sorted(ids, key=lambda name: (xxhash.xxh3_64_intdigest(name.encode()), name))
    return dict(zip(ordered, places, strict=True)) if len(places) == len(ordered) else None


def erase_from_records(
    output: Output,
    shards: Mapping[str, ShardFacts],
    keys: AbstractSet[str],
    sources: AbstractSet[str],
    words: ErasedWords,
) -> None:
    """Rewrite the records of rewritten shards, and records that name an erased sample, source or label.

    Args:
        output: The split.
        shards: Facts of the rewritten shards by their former names.
        keys: Keys of the erased samples.
        sources: Their sources.
        words: Words that only they had.
    """
    records = Records(output, WrittenShard)
    for task in records.tasks():
        found = records.read(task)
        if found is not None and (scrubbed := _scrub_record(found, shards, keys, sources)) != found:
            records.record(task, scrubbed)
    about = records.description()
    if about is not None:
        missing = [one for one in about["missing"] if not names_one(Reject(**one), keys, sources)]
        without = about | {"missing": missing, "label_names": words.label_names(about["label_names"])}
        if without != about:
            records.describe(without)


def drop_records(output: Output, keys: AbstractSet[str]) -> None:
    """Delete the records of stored targets that name an erased sample; `maskstream targets` rebuilds them."""
    names = [name for name in output.names(f"{RECORDS}/") if name.endswith(".record")]
    forms = [json.dumps(key)[1:-1].encode() for key in keys]
    records = {name: output.whole(name, _MOST_BYTES) or b"" for name in names}
    output.remove([name for name, data in records.items() if any(form in data for form in forms)])


def names_one(reject: Reject, keys: AbstractSet[str], sources: AbstractSet[str]) -> bool:
    """Return whether a reject names an erased sample or its source."""
    return reject.source in sources or any(name and name in reject.reason for name in (*keys, *sources))


def _scrub_record(
    record: WrittenShard, shards: Mapping[str, ShardFacts], keys: AbstractSet[str], sources: AbstractSet[str]
) -> WrittenShard:
    shard = record.shard
    states = _states(record, sources)
    rejects = tuple(reject for reject in record.rejects if not names_one(reject, keys, sources))
    if shard is not None and shard.name in shards:
        facts = shards[shard.name]
        first = (facts.written or ("", facts.sha256))[1]
        rows = tuple(
            Row(key=hash_erased_key(first, number), label=-1, source="", members={}) if row.key in keys else row
            for number, row in enumerate(shard.rows)
        )
        shard = ShardRecord(facts.name, facts.sha256, facts.size_bytes, rows)
    return replace(record, shard=shard, rejects=rejects, sources=states)


def _states(record: WrittenShard, sources: AbstractSet[str]) -> tuple[tuple[FileState, ...], ...]:
    """Return the states of the sources' files, empty for erased ones; all are empty if they cannot be assigned."""
    ids = {reject.source for reject in record.rejects}
    ids |= {row.source for row in record.shard.rows} if record.shard is not None else set()
    if not sources & ids:
        return record.sources
    places = find_state_places(record)
    if places is None:
        return ((),) * len(record.sources)
    empty = {place for name, place in places.items() if name in sources}
    return tuple(() if number in empty else files for number, files in enumerate(record.sources))


@dataclass(frozen=True, kw_only=True, slots=True)
class ErasedPart:
    """A rewritten part.

    Attributes:
        name: Former name of the part.
        rows: Numbers of its erased rows.
        data: New contents of the part.
        frames: Number of erased video frames of each of these rows.
    """

    name: str
    rows: Int64s
    data: bytes
    frames: Int64s


@dataclass(frozen=True, kw_only=True, slots=True)
class Erasure:
    """Erased samples.

    Attributes:
        version: Version created without them.
        parts: Their rewritten parts.
        keys: Their keys.
        sources: Their sources.
        words: Words that only they had.
        tokenizer: The tokenizer's file without these words, if it had any.
    """

    version: int
    parts: Sequence[ErasedPart] = ()
    keys: AbstractSet[str] = frozenset()
    sources: AbstractSet[str] = frozenset()
    words: ErasedWords = field(default_factory=ErasedWords)
    tokenizer: bytes | None = None


def publish_without(output: Output, before: Sequence[Json], erasure: Erasure) -> None:
    """Write the parts and the tokenizer, then the description of each version in `before` (the current one last), then
    the new version, which becomes current.
    """
    current = before[-1]
    numbers = [number for part in current["parts"] if (number := parse_part_number(part["name"])) is not None]
    names = {part.name: part_name(max(numbers) + 1 + i) for i, part in enumerate(erasure.parts)}
    files = {names[part.name]: facts_of(part.data) for part in erasure.parts}
    for part in erasure.parts:
        output.publish(names[part.name], part.data)
    if erasure.tokenizer is not None:
        output.publish(name := name_erased_tokenizer(erasure.version), erasure.tokenizer)
        files[name] = facts_of(erasure.tokenizer)
    sums, written = dict[str, list[str]](), dict[str, bytes]()
    for info in before:
        changed = _describe_without(output, info, erasure, names, files)
        if VERSIONS in info:
            changed[VERSIONS] = dict(sums)
        data = written[name_version(info["version"])] = add_checksum(changed)
        sums[str(info["version"])] = [facts_of(data)[SUM]]
    # until all are written, dataset.json has both checksums, so readers accept either
    either = {one: [*dict.fromkeys([sum_of_version(output.store, int(one)), *new])] for one, new in sums.items()}
    output.publish(DATASET_JSON, add_checksum({**current, VERSIONS: either}))
    for name, data in written.items():
        output.publish(name, data)
    new = _describe_without(output, current | {"version": erasure.version}, erasure, names, files)
    publish_version(output, {**new, VERSIONS: sums})


def _describe_without(
    output: Output, info: Json, erasure: Erasure, names: Mapping[str, str], files: Mapping[str, Json]
) -> Json:
    """Return the description of a version whose rejects and removed samples are written.

    Args:
        output: The split.
        info: The former description.
        erasure: The erased samples.
        names: New names of parts by their former ones.
        files: Sizes and checksums of the new parts.
    """
    changed = info | {
        "parts": [part | {"name": names.get(part["name"], part["name"])} for part in info["parts"]],
        "label_names": erasure.words.label_names(info["label_names"]),
    }
    if erasure.tokenizer is not None:
        changed[TOKENIZER] = name_erased_tokenizer(erasure.version)
    samples, start = SampleTable.read(output.store, info), 0
    counts = changed["counts"] = dict(info["counts"])
    changed["files"] = {**info["files"], **files}
    erased = {name: part for part in erasure.parts for name in (part.name, names[part.name])}
    for part in info["parts"]:
        if (found := erased.get(part["name"])) is not None:
            rows = found.rows + start
            if "frames" in counts and part["name"] == found.name:  # else a killed call has subtracted them
                counts["frames"] -= int(found.frames[samples.kept[rows] != Kept.ELSEWHERE].sum())
            samples = samples.mark(rows, Kept.REMOVED)
        start += part["samples"]
    rejects = read_rejects(output.store, info)
    kept = [reject for reject in rejects if not names_one(reject, erasure.keys, erasure.sources)]
    return publish_samples(output, changed, samples, kept if len(kept) < len(rejects) else None, erasure.version)
