"""The states of sources' files when they were encoded, by the sources' ids, from the records of shards."""

from __future__ import annotations

from collections.abc import Iterator

import xxhash

from maskstream.preprocess.job.task import WrittenShard
from maskstream.preprocess.raw.file_state import FileState
from maskstream.shards.format.records import Records

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
