"""Takes the records of appended shards along: they tell what the samples were made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...shards.format.manifest import Manifest
from ...shards.format.records import RECORDS, RecordedTask, Records
from ...shards.stores.location import is_url, place_of
from ...shards.stores.output import Output, output_at
from ..job.task import WrittenShard

_WEB = ("http", "hf")


def carry_records(output: Output, theirs: Manifest, names: Mapping[str, str], version: int) -> None:
    """Write the records of the split `theirs`, if both splits have records, as those of its shards in the output.

    names: our names of their shards. A task without a shard is recorded under its name and the version.
    """
    if is_url(theirs.location) and place_of(theirs.location).scheme in _WEB:
        return
    ours, others = Records(output, WrittenShard), Records(output_at(theirs.location), WrittenShard)
    if ours.job() is None or others.job() is None:
        return
    output.remove_leftovers(RECORDS)
    for task in others.tasks():
        found = others.read(task)
        if found is None:
            continue
        if found.shard is None:
            ours.record(RecordedTask(f"{task.name}.v{version}"), found)
        elif (name := names.get(found.shard.name)) is not None:
            ours.record(RecordedTask(name), replace(found, shard=replace(found.shard, name=name)))
