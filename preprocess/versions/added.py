"""The folders beside a split in which `shards --append` writes the shards that it appends."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from pathlib import Path

from maskstream.preprocess.job.task import WrittenShard
from maskstream.shards.format.records import Records
from maskstream.shards.stores.output import Location, Output, folder_and_name, output_at, within
from maskstream.shards.stores.sole_writer import LOCK
from maskstream.shards.stores.url import is_url

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
    return [folder for folder in all_added(split) if _name(folder) == _name(split) and _holds(folder, keys)]


def all_added(split: Output) -> list[Output]:
    """All splits that killed runs have left in these folders beside a split."""
    out = folder_and_name(whole_location(split))[0]
    if is_url(out):
        names = {tuple(name.split("/")[:2]) for name in output_at(out).names(ADDING)}
    else:
        names = {path.relative_to(out).parts for path in Path(out).glob(f"{ADDING}*/*") if path.is_dir()}
    return [output_at(within(out, "/".join(one))) for one in sorted(names) if _FOLDER.fullmatch(one[0])]


def remove_folder(added: Output) -> None:
    """Delete the folder of `added_with`, which is empty and has no lock any more."""
    adding, split = folder_and_name(whole_location(added))
    out, name = folder_and_name(adding)
    output_at(out).remove([f"{name}/{split}/{LOCK}"])


def _name(split: Output) -> str:
    return folder_and_name(whole_location(split))[1]


def whole_location(output: Output) -> Location:
    """Where an output is: its URL, or its absolute path."""
    return output.location if is_url(output.location) else Path(output.location).absolute()


def _holds(folder: Output, keys: AbstractSet[str]) -> bool:
    records = Records(folder, WrittenShard)
    found = [records.read(task) for task in records.tasks()]
    return any(
        one is None or (one.shard is not None and any(row.key in keys for row in one.shard.rows)) for one in found
    )
