"""Changes values in the descriptions and tables of splits with several versions; checksums of files of themselves fit.

A loader of each version must be refused or show the same, and `verify` must find each change. The ends are "right" and
"refused", by whether a loader was refused; "wrong" (another sample or label), "missed" (by `verify`) and "foreign".
"""

from __future__ import annotations

import copy
import io
import json
import shutil
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.preprocess.versions import append, divide, erase, remove, take_few
from maskstream.shards.checksummed import CHECKSUM, add_checksum
from maskstream.shards.errors import MaskstreamError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.part_writer import encode_parquet
from maskstream.shards.format.verify import verify

from ..preprocess.versions.small_splits import contents, written

SPLITS = {"train": (None, 1, 2, 3, 4, 5), "val": (None, 3), "few-2": (None, 3)}
"""The splits, and the versions of each that can be opened."""


def make_splits(out: Path) -> None:
    """A split of five versions, of which samples are removed, held out and erased, and two that name its parts."""
    train = written(out / "train", 0, ("x", "y"), n=12)
    remove(train, ["k3"])
    append(train, written(out.parent / "more", 100, ("x", "y", "z"), n=9, lone=4))
    divide(train, 0.25, out=out / "val")
    take_few(train, 2)
    erase(train, ["k5"], words=True)
    for split in (out / "val", out / "few-2"):
        remove(split, [next(key for key in keys_of(split) if not key.startswith("erased/"))])


def keys_of(split: Path) -> list[str]:
    """The keys of all samples."""
    manifest = Manifest.load(split)
    return manifest.keys(range(len(manifest)))


def shown(split: Path, version: int | None) -> object:
    """All that decides what a loader shows of a version."""
    found = Manifest.load(split, version=version)
    names = found.info["label_names"]
    rows = [
        (key, names[label] if label >= 0 else label, found.shard_name(i), found.is_removed(i))
        for i, (key, label) in enumerate(zip(keys_of_rows(found), found.label.tolist(), strict=True))
    ]
    places = {name: (one.offset.tolist(), one.size.tolist()) for name, one in found.components.items()}
    return rows, places, names, found.fingerprint


def keys_of_rows(manifest: Manifest) -> list[str]:
    """The keys of all rows."""
    return manifest.keys(range(len(manifest)))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in items:
        yield from leaves(one, (*path, name))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    """The value at a path."""
    for name in path:
        value = value[name]
    return value


def changed_json(data: bytes, rng: np.random.Generator) -> bytes:
    """A description with one or two values that are others, exchanged, gone or twice; its own checksum fits."""
    fields = json.loads(data)
    fields.pop(CHECKSUM)
    for _ in range(int(rng.integers(1, 3))):
        paths = [path for path in leaves(fields) if path]
        path, other = (paths[int(rng.integers(len(paths)))] for _ in range(2))
        parent, name = at(fields, path[:-1]), path[-1]
        value, kind = parent[name], int(rng.integers(5))
        if kind == 0 and isinstance(parent, dict):
            del parent[name]
        elif kind == 1 and isinstance(value, list) and value:
            parent[name] = value[::-1] if len(value) > 1 else value * 2
        elif kind == 2 and isinstance(value, int):
            parent[name] = value + int(rng.integers(-2, 3))
        elif kind == 3 and isinstance(value, str):
            parent[name] = str(rng.choice(["", "x", "removed-000002.parquet", value[::-1], "../val", "z"]))
        else:
            parent[name] = copy.deepcopy(at(fields, other))
    return add_checksum(fields)


def changed_table(data: bytes, rng: np.random.Generator) -> bytes:
    """A table of which a column's values are in another order, or a row is gone."""
    table = pq.read_table(io.BytesIO(data))
    if not len(table):
        return data + b"\0"
    if rng.integers(3) == 0:
        return encode_parquet(table.slice(1))
    column = int(rng.integers(table.num_columns))
    order = pa.array(rng.permutation(len(table)))
    return encode_parquet(table.set_column(column, table.schema.field(column), table.column(column).take(order)))


def end_of(out: Path, truth: dict[tuple[str, int | None], object], rng: np.random.Generator) -> str:
    """Change a file, and see what readers do."""
    tables = ("dataset.json", ".parquet")
    names = sorted(name for name in contents(out) if name.endswith(tables) or "/versions/" in name)
    name = names[int(rng.integers(len(names)))]
    before = (out / name).read_bytes()
    change = changed_table if name.endswith(".parquet") else changed_json
    after = change(before, rng)
    if after == before:
        return "right nothing changed"
    (out / name).write_bytes(after)
    refused, wrong = 0, []
    for (split, version), told in truth.items():
        try:
            if shown(out / split, version) != told:
                wrong.append((split, version))
        except MaskstreamError:
            refused += 1
    found = [split for split in SPLITS if not verify(out / split).ok]
    if wrong:
        return f"wrong {name}: {wrong}"
    if name.split("/")[0] not in found:
        return f"missed {name}"
    return f"{'refused' if refused else 'right'} {name}"


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Changes `count` files, one at a time."""
    make_splits(folder / "whole/out")
    truth = {
        (name, version): shown(folder / "whole/out" / name, version) for name in SPLITS for version in SPLITS[name]
    }
    ends: Counter[str] = Counter()
    for number in range(count):
        out = folder / "changed/out"
        shutil.copytree(folder / "whole/out", out)
        try:
            end = end_of(out, truth, np.random.default_rng([seed, number]))
        except Exception:
            end = f"foreign {traceback.format_exc()}"
        shutil.rmtree(out)
        ends[end.split()[0]] += 1
        if end.split()[0] not in ("right", "refused"):
            print(f"side-files {number} of seed {seed}: {end}", flush=True)
    return ends
