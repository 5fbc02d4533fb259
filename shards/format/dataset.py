"""Finishes a split: writes manifest, rejects and `dataset.json`, whose existence marks the split as finished."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ShardError
from ..members.video import VIDEO
from ..stores.publish import publishing, sync_folder
from .columns import FORMAT, manifest_table, rejects_table
from .record import ShardRecord
from .sample import DatasetInfo, Reject

DATASET_JSON = "dataset.json"
MANIFEST = "manifest.parquet"
REJECTS = "rejects.parquet"
FOREIGN = "foreign"
"""The profile of an index of foreign tars, which other programs wrote."""
ROW_GROUP = 1 << 16
"""Rows per row group, the unit of writing and of decompression."""

_AGAIN = (
    "make the shards again with `maskstream shards DATASET ... --overwrite`, or `maskstream index` for foreign tars"
)
_KEYS = ("dataset", "split", "modality", "profile", "settings", "label_names", "counts", "manifest_sha256", "shards")
_COUNTS: dict[str, type] = dict.fromkeys(("samples", "rejects", "shards", "bytes"), int)
_SHARD: dict[str, type] = {"name": str, "samples": int, "size_bytes": int, "sha256": str}


def finish_split(folder: Path, info: DatasetInfo, shards: Sequence[ShardRecord], rejects: Sequence[Reject]) -> None:
    """Write manifest.parquet, rejects.parquet and, last, dataset.json; the same input gives the same bytes.

    Shards are sorted by name and rejects by source. An existing dataset.json is deleted first, so there is never one
    that describes other files. Raises ShardError if a shard's file is missing or has another size, or if two samples
    have the same key.
    """
    folder = Path(folder)
    shards = sorted(shards, key=lambda shard: shard.name)
    rejects = sorted(rejects, key=lambda reject: (reject.source, reject.stage, reject.reason))
    _check_files(folder, shards)
    _check_keys(shards)
    (folder / DATASET_JSON).unlink(missing_ok=True)
    sync_folder(folder)

    manifest = _parquet_bytes(manifest_table(shards))
    _publish(folder / MANIFEST, manifest)
    _publish(folder / REJECTS, _parquet_bytes(rejects_table(rejects)))
    description = {
        "format": FORMAT,
        "dataset": info.dataset,
        "split": info.split,
        "modality": info.modality,
        "profile": info.profile,
        "settings": info.settings,
        "counts": _counts(shards, len(rejects)),
        "label_names": list(info.label_names),
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "shards": [_shard_facts(shard) for shard in shards],
    } | ({"sums": sums} if (sums := _sums(shards)) else {})
    text = json.dumps(description, indent=2, ensure_ascii=False, allow_nan=False)
    _publish(folder / DATASET_JSON, (text + "\n").encode())


def read_dataset_json(folder: str | Path) -> dict[str, Any]:
    """The contents of `folder`'s dataset.json: format, dataset, split, modality, profile, settings, counts, shards, ...

    Raises ShardError if it is missing, unreadable or of another format.
    """
    path = Path(folder) / DATASET_JSON
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ShardError(_not_a_split(Path(folder))) from error
    except (OSError, ValueError) as error:
        raise ShardError(f"{path} is unreadable ({error}); run `maskstream shards` again to rewrite it") from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise ShardError(f"{path} has the format {found!r}; this version of maskstream reads {FORMAT!r}: {_AGAIN}")
    if missing := [key for key in _KEYS if key not in data]:
        raise ShardError(f"{path} lacks {', '.join(missing)}; run `maskstream shards` again to rewrite it")
    shards = data["shards"] if isinstance(data["shards"], list) else [None]
    if not _has_shape(data["counts"], _COUNTS) or not all(_has_shape(shard, _SHARD) for shard in shards):
        raise ShardError(f"{path}: counts or shards do not have the form of {FORMAT!r}; run `maskstream shards` again")
    return dict(data)


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


def _not_a_split(folder: Path) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}; give the folder of a split (`maskstream shards DATASET --out OUT`)"
    splits = sorted(path.parent.name for path in folder.glob(f"*/{DATASET_JSON}"))
    if splits:
        return f"{folder} holds the splits {', '.join(splits)}; give one of them, such as {folder / splits[0]}"
    return (
        f"there is no {DATASET_JSON} in {folder}, so it is no finished split; finish it with `maskstream shards`, "
        "which continues a stopped run"
    )


def _check_files(folder: Path, shards: Sequence[ShardRecord]) -> None:
    for shard in shards:
        path = folder / shard.name
        size = path.stat().st_size if path.is_file() else None
        if size != shard.size_bytes:
            found = "is missing" if size is None else f"has {size} bytes"
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


def _publish(path: Path, data: bytes) -> None:
    with publishing(path) as stream:
        stream.write(data)
