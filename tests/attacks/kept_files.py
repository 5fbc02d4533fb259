"""Damages and forges files that are made from a split and read instead of it: measures of `curate`, the index file.

Single bits are flipped, files are cut, and rows of measures get other values, without a checksum that fits. Each must
be made again ("right"); "wrong" is another curation, key, label or place.
"""

from __future__ import annotations

import os
import traceback
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.preprocess.curate import curate
from maskstream.shards.format import index_cache
from maskstream.shards.format.manifest import Manifest

from ..pipelines.every_modality import write_split

NUMBERS = (None, -1.0, 0.0, 1e-300, 1e15, float("inf"), float("nan"), 0.5)
COUNTS = (None, -1, 0, 1, 2, 10**12)


def shown(split: Path) -> object:
    """What a curation finds, and all that decides what a loader reads."""
    found = curate(split, keep="sharpness>=p30", copies=True, dry_run=True)
    manifest = Manifest.load(split)
    places = {name: (one.offset.tolist(), one.size.tolist()) for name, one in manifest.components.items()}
    gone = [(one.place, one.why, one.of) for one in found.gone]
    return gone, manifest.keys(range(len(manifest))), manifest.label.tolist(), places


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A file of which bits are flipped, or the end is gone."""
    changed = bytearray(data)
    for place in rng.integers(len(data), size=int(rng.integers(1, 4))).tolist():
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed[: int(rng.integers(len(data)))] if rng.integers(4) == 0 else changed)


def forged(path: Path, rng: np.random.Generator) -> None:
    """A row of a table of measures gets another value."""
    table = pq.read_table(path)
    rows, column = table.to_pylist(), table.schema.field(int(rng.integers(table.num_columns)))
    row = rows[int(rng.integers(len(rows)))]
    value = row[column.name]
    if pa.types.is_floating(column.type):
        row[column.name] = NUMBERS[int(rng.integers(len(NUMBERS)))]
    elif pa.types.is_integer(column.type):
        row[column.name] = COUNTS[int(rng.integers(len(COUNTS)))]
    else:
        row[column.name] = (None, value[:0], value[:-1], value + value, value[::-1])[int(rng.integers(5))]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema.with_metadata({})), path)


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Changes `count` files, one at a time."""
    ends: Counter[str] = Counter()
    with ExitStack() as ends_of:
        ends_of.enter_context(patch.dict(os.environ, {index_cache.CACHE: str(folder / "cache")}))
        ends_of.enter_context(patch.object(index_cache, "SMALL_BYTES", 0))
        split = write_split("image", folder / "split")
        truth = shown(split)
        measures = sorted((split / ".measures").iterdir())
        files = [*measures, *sorted((folder / "cache/indexes").glob("*.index"))]
        whole = {path: path.read_bytes() for path in files}
        for number in range(count):
            rng = np.random.default_rng([seed, number])
            path = files[int(rng.integers(len(files)))]
            path.unlink()  # not in place: a manifest may map it
            path.write_bytes(whole[path])
            if path in measures and rng.integers(2):
                forged(path, rng)
            else:
                path.write_bytes(damaged(whole[path], rng))
            try:
                end = "right" if shown(split) == truth else "wrong"
            except Exception:
                end = "foreign"
                traceback.print_exc()
            ends[end] += 1
            if end != "right":
                print(f"kept-files {number} of seed {seed}: {end} {path.name}", flush=True)
    return ends
