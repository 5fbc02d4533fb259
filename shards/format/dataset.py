"""Finishes a split: writes manifest, rejects and `dataset.json`, whose existence marks the split as finished."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import MissingFileError, ShardError, StoreError
from ..members.video import VIDEO
from ..sealed import SEAL, sealed, unsealed
from ..stores.base import Store
from ..stores.local import LocalStore
from ..stores.location import opened
from ..stores.output import Location, Output, Sizes, output_at, within
from .checked_file import SIZE_BYTES, SUM, facts_of
from .columns import FORMAT, manifest_table, rejects_table
from .damage import REMEDY, parsing
from .record import ShardRecord
from .sample import DatasetInfo, Reject

DATASET_JSON = "dataset.json"
MANIFEST = "manifest.parquet"
REJECTS = "rejects.parquet"
FOREIGN = "foreign"
"""The profile of an index of foreign tars, which other programs wrote."""
ROW_GROUP = 1 << 16
"""Rows per row group, the unit of writing and of decompression."""

MAX_JSON_BYTES = 1 << 30
"""The largest dataset.json that is read; that of ten thousand shards has 2 MB."""

MAX_SPLITS_NAMED = 20
"""The most folders that a message about a location that is no split looks into."""

_AGAIN = (
    "make the shards again with `maskstream shards DATASET ... --overwrite`, or `maskstream index` for foreign tars"
)
_TEXTS = ("dataset", "split", "modality", "profile")
_KEYS = (*_TEXTS, "settings", "label_names", "counts", "files", "shards")
_COUNTS: dict[str, type] = dict.fromkeys(("samples", "rejects", "shards", "bytes"), int)
_SHARD: dict[str, type] = {"name": str, "samples": int, "size_bytes": int, "sha256": str}
_FILE: dict[str, type] = {SIZE_BYTES: int, SUM: str}


def finish_split(
    folder: Location | Output, info: DatasetInfo, shards: Sequence[ShardRecord], rejects: Sequence[Reject]
) -> None:
    """Write manifest.parquet, rejects.parquet and, last, dataset.json, which has the checksums of both and of itself.

    The same input gives the same bytes. Shards are sorted by name and rejects by source. An existing dataset.json is
    deleted first, so there is never one that describes other files. Where no lock keeps other runs out (an object
    store), it stays: an equal one is that of another run of the same job. Raises ShardError if it is another one, if a
    shard's file is missing or has another size, or if two samples have the same key.
    """
    output = output_at(folder)
    shards = sorted(shards, key=lambda shard: shard.name)
    rejects = sorted(rejects, key=lambda reject: (reject.source, reject.stage, reject.reason))
    _check_files(output.sizes(), shards)
    _check_keys(shards)

    files = {MANIFEST: _parquet_bytes(manifest_table(shards)), REJECTS: _parquet_bytes(rejects_table(rejects))}
    description = {
        "format": FORMAT,
        "dataset": info.dataset,
        "split": info.split,
        "modality": info.modality,
        "profile": info.profile,
        "settings": info.settings,
        "counts": _counts(shards, len(rejects)),
        "label_names": list(info.label_names),
        "files": {name: facts_of(data) for name, data in files.items()},
        "shards": [_shard_facts(shard) for shard in shards],
    } | ({"sums": sums} if (sums := _sums(shards)) else {})
    json.dumps(description, allow_nan=False)  # raises ValueError for what is no JSON
    data = sealed(description)
    if output.is_locked:
        output.remove([DATASET_JSON])
    else:
        _check_same(output, data)
    for name, contents in files.items():
        output.publish(name, contents)
    if not output.create(DATASET_JSON, data):
        _check_same(output, data)


def _check_same(output: Output, data: bytes) -> None:
    """Raise ShardError if there is a dataset.json that is not `data`."""
    if output.whole(DATASET_JSON, MAX_JSON_BYTES) not in (None, data):
        raise ShardError(
            f"{within(output.location, DATASET_JSON)} is there and differs from that of this run, so another run wrote "
            "it from other rejects or settings; if none is running, delete it and run the same command again"
        )


def read_dataset_json(location: str | Path | Store) -> dict[str, Any]:
    """The dataset.json of a location or store: format, dataset, split, modality, profile, settings, counts, shards, ...

    Raises ShardError if it is missing, no regular file, damaged (its checksum of itself tells), or of another format,
    and if a shard's name leads out of the folder of a split that is no index of foreign tars.
    """
    store = opened(location)
    path = f"{store.location}/{DATASET_JSON}"
    data = _json_bytes(store)
    try:
        info = unsealed(data)
    except ValueError as error:
        if (found := _older_format(data)) is not None:
            raise ShardError(_other_format(path, found)) from error
        raise ShardError(f"{path} is damaged: {error}; {REMEDY}") from error
    if (format_ := info.get("format")) != FORMAT:
        raise ShardError(_other_format(path, format_))
    with parsing(path):
        _check_form(path, info)
        _check_names(path, info)
    return info


def is_split(location: str | Path | Store) -> bool:
    """Whether a location or store has a dataset.json."""
    try:
        opened(location).size(DATASET_JSON)
    except StoreError:
        return False
    return True


def _json_bytes(store: Store) -> bytes:
    try:
        return store.whole(DATASET_JSON, MAX_JSON_BYTES)
    except MissingFileError as error:
        raise ShardError(_not_a_split(store)) from error
    except StoreError as error:
        raise ShardError(f"{error}; {REMEDY}") from error


def _older_format(data: bytes) -> str | None:
    """The format of a dataset.json from before it had a checksum of itself; None for any other contents."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or SEAL in fields or fields.get("format") == FORMAT:
        return None
    return str(fields.get("format"))


def _other_format(path: str, found: object) -> str:
    return f"{path} has the format {found!r}; this version of maskstream reads {FORMAT!r}: {_AGAIN}"


def _check_form(path: str, info: dict[str, Any]) -> None:
    """Raise ShardError for missing fields and fields of other types."""
    if missing := [key for key in _KEYS if key not in info]:
        raise ShardError(f"{path} lacks {', '.join(missing)}; {REMEDY}")
    shards = info["shards"] if isinstance(info["shards"], list) else [None]
    files = info["files"] if isinstance(info["files"], dict) else {}
    names = info["label_names"] if isinstance(info["label_names"], list) else [None]
    sums = info.get("sums", {})
    forms = {
        "counts": _has_shape(info["counts"], _COUNTS),
        "shards": all(_has_shape(shard, _SHARD) for shard in shards),
        "files": all(_has_shape(files.get(name), _FILE) for name in (MANIFEST, REJECTS)),
        "settings": isinstance(info["settings"], dict),
        "label_names": all(isinstance(name, str) for name in names),
        "sums": isinstance(sums, dict) and all(_are_finite(values) for values in sums.values()),
        **{name: isinstance(info[name], str) for name in _TEXTS},
    }
    if wrong := [name for name, has_form in forms.items() if not has_form]:
        raise ShardError(f"{path}: {' and '.join(wrong)} do not have the form of {FORMAT!r}; {REMEDY}")


def _check_names(path: str, info: dict[str, Any]) -> None:
    """Raise ShardError for the name of a shard that is no tar or, but in an index, is not in the folder itself."""
    foreign = info["profile"] == FOREIGN
    for shard in info["shards"]:
        name = shard["name"]
        in_folder = foreign or "/" not in name
        if not (name.endswith(".tar") and in_folder and b"\0" not in name.encode()):
            legal = "paths of tars" if foreign else "names of tars in the folder itself, such as 'NAME-000000.tar'"
            raise ShardError(f"{path}: a shard is named {name!r}; legal are {legal}; {REMEDY}")


def _are_finite(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(v, int | float) and math.isfinite(v) for v in values)


def _counts(shards: Sequence[ShardRecord], rejects: int) -> dict[str, int]:
    """The numbers of samples, rejects, shards and bytes, and of frames if there are videos."""
    members = (member for shard in shards for row in shard.rows for member in row.members.values())
    frames = [int(member.facts["n_frames"]) for member in members if member.kind == VIDEO.name]
    counts = {"samples": sum(len(shard.rows) for shard in shards), "rejects": rejects, "shards": len(shards)}
    return counts | ({"frames": sum(frames)} if frames else {}) | {"bytes": sum(shard.size_bytes for shard in shards)}


def _sums(shards: Sequence[ShardRecord]) -> dict[str, list[float]]:
    """The sums over all samples (see `Sample`), independent of their order."""
    parts: dict[str, list[list[float]]] = {}
    for shard in shards:
        for row in shard.rows:
            for name, values in row.sums.items():
                parts.setdefault(name, []).append(values)
    return {name: [math.fsum(column) for column in zip(*rows, strict=True)] for name, rows in sorted(parts.items())}


def _shard_facts(shard: ShardRecord) -> dict[str, Any]:
    facts = {"name": shard.name, "samples": len(shard.rows), "size_bytes": shard.size_bytes, "sha256": shard.sha256}
    return facts if shard.packets_sha256 is None else facts | {"packets_sha256": shard.packets_sha256}


def _has_shape(value: object, types: dict[str, type]) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in types.items())


def _not_a_split(store: Store) -> str:
    where = store.location
    if isinstance(store, LocalStore) and not store.folder.is_dir():
        return f"there is no folder {where}; give the folder of a split (`maskstream shards DATASET --out OUT`)"
    if splits := _splits_in(store):
        return f"{where} holds the splits {', '.join(splits)}; give one of them, such as {where}/{splits[0]}"
    return (
        f"there is no {DATASET_JSON} in {where}, so it is no finished split; finish it with `maskstream shards`, "
        "which continues a stopped run"
    )


def _splits_in(store: Store) -> list[str]:
    """The splits in folders of the store; none if it cannot list them."""
    splits = []
    with suppress(StoreError):
        for name in store.folders()[:MAX_SPLITS_NAMED]:
            with suppress(StoreError):
                store.size(f"{name}/{DATASET_JSON}")
                splits.append(name)
    return splits


def _check_files(sizes: Sizes, shards: Sequence[ShardRecord]) -> None:
    for shard in shards:
        size = sizes.size(shard.name)
        if size != shard.size_bytes:
            found = "is missing" if size is None else f"has {size} bytes"
            path = within(sizes.location, shard.name)
            raise ShardError(f"the shard {path} {found}, but was written with {shard.size_bytes} bytes; write it again")


def _check_keys(shards: Sequence[ShardRecord]) -> None:
    names = Counter(shard.name for shard in shards)
    keys = Counter(row.key for shard in shards for row in shard.rows)
    for what, counter in (("shard name", names), ("key", keys)):
        if twice := [name for name, count in counter.items() if count > 1]:
            raise ShardError(f"{len(twice)} {what}s occur more than once in this split, such as {twice[0]!r}")


def _parquet_bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=ROW_GROUP)
    return buffer.getvalue()
