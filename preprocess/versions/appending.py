"""Append the shards of one split to another, as a new version; its samples follow the existing ones."""

import json
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.preprocess.job.task import WrittenShard
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.checked_file import facts_of, read_checked
from maskstream.shards.format.columns import COMPONENTS_KEY, ShardFacts, build_part_metadata
from maskstream.shards.format.dataset import CURATIONS, HELD_OUT_OF, publish_version, read_description
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.part_writer import encode_parquet, parse_part_number, part_name
from maskstream.shards.format.records import RECORDS, RecordedTask, Records
from maskstream.shards.stores.base import stream
from maskstream.shards.stores.block_sums import SUMS
from maskstream.shards.stores.folders import get_folder_name
from maskstream.shards.stores.output import Location, Output, open_output
from maskstream.shards.stores.url import is_url, parse_place

from .merging import (
    add_counts,
    add_sums,
    check_distinct,
    check_fit,
    check_keys,
    join_curations,
    join_rejects,
)
from .samples import SampleTable, publish_samples

_WEB = ("http", "hf")


def write_carried_records(output: Output, theirs: Manifest, names: Mapping[str, str], version: int) -> None:
    """Copy the records of the split `theirs` into the output, if both splits have records.

    Args:
        output: The extended split.
        theirs: The appended split.
        names: Names of its shards in the output. A task without a shard is recorded under its name and the version.
        version: The new version.
    """
    if is_url(theirs.location) and parse_place(theirs.location).scheme in _WEB:
        return
    ours, others = Records(output, WrittenShard), Records(open_output(theirs.location), WrittenShard)
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


_CHUNK_BYTES = 1 << 20
_NUMBER = re.compile(r"(.+)-(\d{6})(?:\.e\d+)?\.tar")


@dataclass(frozen=True, kw_only=True, slots=True)
class Appended:
    """Result of an append: the current version, and the numbers of added samples and shards."""

    version: int
    samples: int
    shards: int


def append(split: Location | Output, other: Location, *, retried: AbstractSet[str] = frozenset()) -> Appended:
    """Create a version of `split` with copies of the shards of the split `other` after its own.

    Labels are matched by name; new names come last. The version becomes current when everything is written, so a killed
    run changes nothing, and the same call resumes it with the same bytes. If the last shards of `split` are already
    those of `other`, nothing is done.

    Args:
        split: The split to extend.
        other: The split to append.
        retried: Sources that `other` has tried again, whose rejects in `split` no longer count.

    Raises:
        DatasetError: The splits differ in modality, profile, encoder settings or components, or share keys. Nothing is
            written.
        ShardError: A split cannot be read.
        BusyError: Another run is writing.
    """
    output = open_output(split)
    read_description(output.store)  # raises before a lock makes a folder
    with output.sole_writer():
        ours, theirs = Manifest.open(output.store, whole=True), Manifest.load(other, whole=True)
        if HELD_OUT_OF in ours.info:
            raise DatasetError(
                f"{ours.location} is a validation split of {ours.info[HELD_OUT_OF]} and shares its shards; append "
                "to that split, then run the same `maskstream split` again, which divides the added samples"
            )
        check_distinct((ours, theirs))
        check_fit(ours, theirs)
        added = int(theirs.info["counts"]["samples"])
        if _has_last(ours, theirs):
            return Appended(version=ours.version, samples=added, shards=len(theirs.shard_names))
        check_keys((ours, theirs))
        labels = _labels(ours, theirs)
        names = _names(ours, theirs)
        for old, new in names.items():
            for suffix in (".tar", ".idx", SUMS):
                _copy(theirs, old.removesuffix(".tar") + suffix, output, new.removesuffix(".tar") + suffix)
        files: dict[str, Any] = {}
        parts, number = [*ours.info["parts"]], find_next_part(ours)
        for part in theirs.info["parts"]:
            data, name = _part(theirs, part["name"], names, labels), part_name(number)
            number += 1
            output.publish(name, data)
            files[name] = facts_of(data)
            parts.append(part | {"name": name})
        write_carried_records(output, theirs, names, ours.version + 1)
        description = _describe_version(output, ours, theirs, names, parts, files, retried)
        publish_version(output, description)
    return Appended(version=description["version"], samples=added, shards=len(names))


def _has_last(ours: Manifest, theirs: Manifest) -> bool:
    """Return whether our last shards are theirs, as after an append that was killed at the very end."""
    last = [shard.sha256 for shard in theirs.shards()]
    return last == [shard.sha256 for shard in ours.shards()][-len(last) :]


def find_next_part(manifest: Manifest) -> int:
    """Return the number of the next part in the split's own folder."""
    numbers = [parse_part_number(part["name"]) for part in manifest.info["parts"]]
    return max((number for number in numbers if number is not None), default=-1) + 1


def _label_names(ours: Manifest, theirs: Manifest) -> list[str]:
    """Return the label names of both splits, ours first."""
    return list(dict.fromkeys([*ours.info["label_names"], *theirs.info["label_names"]]))


def _labels(ours: Manifest, theirs: Manifest) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return our number for each of their labels, and last -1, for no label."""
    known, named = theirs.info["label_names"], bool(ours.info["label_names"])
    most = int(theirs.label.max(initial=-1))
    if most >= len(known) or named != bool(known):
        if known or named:
            raise DatasetError(
                f"{ours.location} and {theirs.location} must both name their labels, or neither; one has "
                f"{len(ours.info['label_names'])} names, the other {len(known)} and labels up to {most}"
            )
        return np.array([*range(most + 1), -1], np.int64)
    number = {name: i for i, name in enumerate(_label_names(ours, theirs))}
    return np.array([*(number[name] for name in known), -1], np.int64)


def _names(ours: Manifest, theirs: Manifest) -> dict[str, str]:
    """Map their shard names to ours: the dataset's name and the numbers after our last."""
    numbers = [int(found[2]) for name in ours.shard_names if (found := _NUMBER.fullmatch(name))]
    first = max(numbers, default=-1) + 1
    return {name: f"{ours.info['dataset']}-{first + i:06d}.tar" for i, name in enumerate(theirs.shard_names)}


def _copy(theirs: Manifest, name: str, output: Output, to: str) -> None:
    """Copy a file. The later verification compares its bytes."""
    with stream(theirs.store, name) as file, output.writing(to) as written:
        while data := file.read(_CHUNK_BYTES):
            written.write(data)


def _part(
    theirs: Manifest, name: str, names: Mapping[str, str], labels: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> bytes:
    """Return one of their parts with our shard names and label numbers."""
    data = read_checked(theirs.store, name, theirs.info["files"])
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        table = file.read(use_threads=False)
    metadata = table.schema.metadata
    folder = get_folder_name(name)
    at = f"{folder}/" if folder else ""
    shard = pa.array([names[at + one] for one in table.column("shard").to_pylist()], pa.string())
    columns = {
        "shard": shard.dictionary_encode(),
        "label": pa.array(labels[table.column("label").to_numpy()]),
    }
    for column, values in columns.items():
        table = table.set_column(table.column_names.index(column), column, values)
    held = set(shard.to_pylist())
    own = [one for one in _rename_parts(theirs, names) if one.name in held]
    described = build_part_metadata(json.loads(metadata[COMPONENTS_KEY]), [one.to_json() for one in own])
    return encode_parquet(table.replace_schema_metadata(described))


def _rename_parts(theirs: Manifest, names: Mapping[str, str]) -> list[ShardFacts]:
    return [replace(one, name=names[one.name]) for one in theirs.shards()]


def _describe_version(
    output: Output,
    ours: Manifest,
    theirs: Manifest,
    names: Mapping[str, str],
    parts: list[dict[str, Any]],
    files: dict[str, Any],
    retried: AbstractSet[str],
) -> dict[str, Any]:
    """Return the version's description, and write its rejects and removed samples."""
    both = (ours, theirs)
    samples = SampleTable.join(both)
    info = {name: value for name, value in ours.info.items() if name != "sums"}
    info |= join_curations(output, ours.info.get(CURATIONS, ()), (theirs,))
    info |= {
        "version": ours.version + 1,
        "fingerprint": samples.make_fingerprint([*ours.shards(), *_rename_parts(theirs, names)]),
        "counts": add_counts(both),
        "label_names": _label_names(ours, theirs),
        "parts": parts,
        "files": ours.info["files"] | files,
    }
    if sums := add_sums(both):
        info["sums"] = sums
    return publish_samples(output, info, samples, join_rejects(both, retried))
