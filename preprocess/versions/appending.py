"""Appends the shards of one split to another, as a new version of it: its samples come after those that are there."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...shards.errors import DatasetError
from ...shards.format.checked_file import facts_of, read_checked
from ...shards.format.columns import COMPONENTS_KEY, part_metadata, rejects_table
from ...shards.format.dataset import FINGERPRINT_DIGITS, FOREIGN, publish_version, read_dataset_json
from ...shards.format.manifest import Manifest
from ...shards.format.part_writer import parquet_bytes, part_name
from ...shards.format.rejects import read_rejects
from ...shards.format.removed import REMOVED, removed_bytes, removed_name
from ...shards.format.shard_facts import ShardFacts
from ...shards.format.unique_keys import hashes_of, repeated_keys
from ...shards.stores.block_sums import SUMS
from ...shards.stores.output import Location, Output, output_at
from ...shards.stores.stream import stream

_AT_ONCE = 1 << 16
_CHUNK_BYTES = 1 << 20
_SHOWN = 3
_NUMBER = re.compile(r"(.+)-(\d{6})\.tar")


@dataclass(frozen=True, kw_only=True, slots=True)
class Appended:
    """What an append made: the current version, and how many samples and shards it has more."""

    version: int
    samples: int
    shards: int


def append(split: Location | Output, other: Location) -> Appended:
    """Make a version of `split` with copies of the shards of the split `other` behind its own.

    Labels are matched by their names; names that are new come last. The version is there when everything is written, so
    a run that is killed changes nothing, and the same call again continues to the same bytes.

    Raises DatasetError, before anything is written, if the splits do not fit (modality, profile, settings of the
    encoder, components, keys that both have); ShardError if one cannot be read; BusyError if another run writes.
    """
    output = output_at(split)
    read_dataset_json(output.store)  # raises before a lock makes a folder
    with output.sole_writer():
        ours, theirs = Manifest.load(output.store, cached=False), Manifest.load(other, cached=False)
        _check(ours, theirs)
        labels = _labels(ours, theirs)
        names = _names(ours, theirs)
        for old, new in names.items():
            for suffix in (".tar", ".idx", SUMS):
                _copy(theirs, old.removesuffix(".tar") + suffix, output, new.removesuffix(".tar") + suffix)
        files: dict[str, Any] = {}
        parts = [*ours.info["parts"]]
        for part in theirs.info["parts"]:
            data, name = _part(theirs, part["name"], names, labels), part_name(len(parts))
            output.publish(name, data)
            files[name] = facts_of(data)
            parts.append(part | {"name": name})
        description = _described(output, ours, theirs, names, parts, files)
        publish_version(output, description)
    return Appended(version=description["version"], samples=len(theirs), shards=len(names))


def _check(ours: Manifest, theirs: Manifest) -> None:
    """Raise DatasetError, which says what differs, if the splits cannot be one."""
    if FOREIGN in (ours.info["profile"], theirs.info["profile"]):
        raise DatasetError(
            "an index of foreign tars is not appended to; index all tars together with `maskstream index`"
        )
    for what in ("modality", "profile"):
        if ours.info[what] != theirs.info[what]:
            raise DatasetError(
                f"{theirs.location} has the {what} {theirs.info[what]!r}, and {ours.location} has "
                f"{ours.info[what]!r}; make both alike with `maskstream shards`"
            )
    encoders = [one.info["settings"].get("encoder") for one in (ours, theirs)]
    if encoders[0] != encoders[1]:
        raise DatasetError(
            f"{theirs.location} was encoded with {encoders[1]}, and {ours.location} with {encoders[0]}; make both "
            "alike with `maskstream shards`"
        )
    for name in ours.components.keys() & theirs.components.keys():
        kinds = ours.components[name].kind, theirs.components[name].kind
        if kinds[0] != kinds[1]:
            raise DatasetError(f"component {name!r} is {kinds[1]} in {theirs.location}, and {kinds[0]} in ours")
    both = [list(_keys(one)) for one in (ours, theirs)]
    if twice := repeated_keys([hashes_of(keys) for one in both for keys in one], [k for one in both for k in one]):
        shown = ", ".join(map(repr, twice[:_SHOWN])) + (", ..." if len(twice) > _SHOWN else "")
        raise DatasetError(f"{len(twice)} keys are in both {ours.location} and {theirs.location}: {shown}")


def _keys(manifest: Manifest) -> Iterator[list[str]]:
    for begin in range(0, len(manifest), _AT_ONCE):
        yield manifest.keys(range(begin, min(begin + _AT_ONCE, len(manifest))))


def _label_names(ours: Manifest, theirs: Manifest) -> list[str]:
    """The names of the labels of both, ours first."""
    return list(dict.fromkeys([*ours.info["label_names"], *theirs.info["label_names"]]))


def _labels(ours: Manifest, theirs: Manifest) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Our number of each of their labels; the last is -1, that of no label."""
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
    """Our names of their shards: the dataset's name, and the numbers after ours."""
    numbers = [int(found[2]) for name in ours.shard_names if (found := _NUMBER.fullmatch(name))]
    first = max(numbers, default=-1) + 1
    return {name: f"{ours.info['dataset']}-{first + i:06d}.tar" for i, name in enumerate(theirs.shard_names)}


def _copy(theirs: Manifest, name: str, output: Output, to: str) -> None:
    """Copy a file; the verification afterwards compares its bytes."""
    with stream(theirs.store, name) as file, output.writing(to) as written:
        while data := file.read(_CHUNK_BYTES):
            written.write(data)


def _part(
    theirs: Manifest, name: str, names: Mapping[str, str], labels: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> bytes:
    """One of their parts with our names of shards and numbers of labels."""
    data = read_checked(theirs.store, name, theirs.info["files"])
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        table = file.read(use_threads=False)
    metadata = table.schema.metadata
    shard = pa.array([names[one] for one in table.column("shard").to_pylist()], pa.string())
    columns = {
        "shard": shard.dictionary_encode(),
        "label": pa.array(labels[table.column("label").to_numpy()]),
    }
    for column, values in columns.items():
        table = table.set_column(table.column_names.index(column), column, values)
    held = set(shard.to_pylist())
    own = [one for one in _renamed(theirs, names) if one.name in held]
    described = part_metadata(json.loads(metadata[COMPONENTS_KEY]), [one.to_json() for one in own])
    return parquet_bytes(table.replace_schema_metadata(described))


def _renamed(theirs: Manifest, names: Mapping[str, str]) -> list[ShardFacts]:
    return [replace(one, name=names[one.name]) for one in theirs.shards()]


def _described(
    output: Output,
    ours: Manifest,
    theirs: Manifest,
    names: Mapping[str, str],
    parts: list[dict[str, Any]],
    files: dict[str, Any],
) -> dict[str, Any]:
    """The description of the version; its rejects and removed samples are written."""
    version = ours.version + 1
    rejects = [reject for one in (ours, theirs) for reject in read_rejects(one.store, one.info)]
    rejects.sort(key=lambda reject: (reject.source, reject.stage, reject.reason))
    removed = np.concatenate([ours.removed, theirs.removed + len(ours)])
    written = {f"rejects-{version:06d}.parquet": parquet_bytes(rejects_table(rejects))}
    if len(removed):
        written[removed_name(version)] = removed_bytes(removed)
    for name, data in written.items():
        output.publish(name, data)
        files[name] = facts_of(data)
    kept = {part["name"]: ours.info["files"][part["name"]] for part in ours.info["parts"]}
    counts = {
        name: ours.info["counts"].get(name, 0) + theirs.info["counts"].get(name, 0)
        for name in ours.info["counts"] | theirs.info["counts"]
    }
    lines = "".join(f"{one.name} {one.sha256}\n" for one in [*ours.shards(), *_renamed(theirs, names)])
    changed = {
        "version": version,
        "fingerprint": hashlib.sha256(lines.encode()).hexdigest()[:FINGERPRINT_DIGITS],
        "counts": counts,
        "label_names": _label_names(ours, theirs),
        "rejects": f"rejects-{version:06d}.parquet",
        "parts": parts,
        "files": kept | files,
    }
    if len(removed):
        changed[REMOVED] = removed_name(version)
    sums = [one.info.get("sums", {}) for one in (ours, theirs)]
    if sums[0].keys() == sums[1].keys() and sums[0]:
        changed["sums"] = {
            name: [math.fsum(pair) for pair in zip(sums[0][name], sums[1][name], strict=True)] for name in sums[0]
        }
    return {name: value for name, value in ours.info.items() if name not in ("sums", REMOVED)} | changed
