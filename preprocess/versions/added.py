"""The folders beside a split in which `shards --append` writes the shards that it appends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from ...shards.format.records import Records
from ...shards.stores.location import is_url
from ...shards.stores.output import Location, Output, folder_and_name, output_at, within
from ...shards.stores.sole_writer import LOCK
from ..shard_task import WrittenShard

ADDING = ".adding-"
"""The beginning of the name of such a folder; the sources that it adds are the rest."""
_FOLDER = re.compile(rf"{re.escape(ADDING)}[0-9a-f]{{16}}")


def remove_added(out: Output) -> None:
    """Delete what is in these folders of the output of a job, after it was appended."""
    out.remove([name for name in out.names(ADDING) if _FOLDER.fullmatch(name.split("/")[0])])


def added_with(split: Output, keys: AbstractSet[str]) -> list[Output]:
    """The folders beside a split that hold samples with some of these keys, as a killed run leaves them. One with a
    shard whose record cannot be read is among them.
    """
    return [folder for folder in map(output_at, _beside(split.location)) if _holds(folder, keys)]


def remove_folder(added: Output) -> None:
    """Delete the folder of `added_with`, which is empty and has no lock any more."""
    adding, split = folder_and_name(_whole(added.location))
    out, name = folder_and_name(adding)
    output_at(out).remove([f"{name}/{split}/{LOCK}"])


def _beside(location: str) -> Iterator[Location]:
    """The folders of the same split in the folders of what is added."""
    out, split = folder_and_name(_whole(location))
    if is_url(out):
        names = {name.split("/")[0] for name in output_at(out).names(ADDING)}
    else:
        names = {path.name for path in Path(out).glob(f"{ADDING}*") if (path / split).is_dir()}
    yield from (within(within(out, name), split) for name in sorted(names) if _FOLDER.fullmatch(name))


def _whole(location: str) -> Location:
    return location if is_url(location) else Path(location).absolute()


def _holds(folder: Output, keys: AbstractSet[str]) -> bool:
    records = Records(folder, WrittenShard)
    found = [records.read(task) for task in records.tasks()]
    return any(
        one is None or (one.shard is not None and any(row.key in keys for row in one.shard.rows)) for one in found
    )
