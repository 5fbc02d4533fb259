"""Writes a part of a manifest again without what it says of erased samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.shards.format.checked_file import read_checked
from maskstream.shards.format.columns import (
    COMPONENT_COLUMNS,
    COMPONENTS_KEY,
    OFFSET,
    SHARDS_KEY,
    SIZE,
    WORD,
    part_metadata,
)
from maskstream.shards.format.part_writer import parquet_bytes
from maskstream.shards.format.removed import erased_key
from maskstream.shards.format.shard_facts import ShardFacts
from maskstream.shards.members.text import TOKENS
from maskstream.shards.stores.base import Store

KEPT = {TOKENS.name: frozenset({SIZE, *TOKENS.facts, *TOKENS.words})}
"""What stays of an erased member, by its kind: texts are packed into rows by their lengths, which keep all others where
they are."""


def erased_part(
    store: Store, info: Mapping[str, Any], name: str, rows: Sequence[int], shards: Mapping[str, ShardFacts]
) -> tuple[bytes, set[str]]:
    """The part `name` without what it says of its samples `rows` (in the part), and the sources of these.

    shards: the facts of the shards that were written again, by the names that they had.
    """
    with pq.ParquetFile(pa.BufferReader(read_checked(store, name, info["files"]))) as file:
        table = file.read(use_threads=False).combine_chunks()
    metadata = table.schema.metadata
    before = [ShardFacts.from_json(one) for one in json.loads(metadata[SHARDS_KEY])]
    after = [shards.get(one.name, one) for one in before]
    kinds: dict[str, str] = json.loads(metadata[COMPONENTS_KEY])
    erased = np.zeros(len(table), bool)
    erased[list(rows)] = True
    columns = _samples(table, erased, before, after)
    for component in list(kinds):
        own = _component(table, component, erased, KEPT.get(kinds[component], frozenset()))
        if own[f"{component}.{OFFSET}"].null_count == len(table) and kinds[component] not in KEPT:
            del kinds[component]
        else:
            columns |= own
    named = {column: columns[column] for column in table.column_names if column in columns}
    data = parquet_bytes(pa.table(named, metadata=part_metadata(kinds, [one.to_json() for one in after])))
    return data, {*table.column("source").filter(pa.array(erased)).to_pylist()} - {""}


def _samples(
    table: pa.Table, erased: np.ndarray[Any, np.dtype[np.bool_]], before: list[ShardFacts], after: list[ShardFacts]
) -> dict[str, pa.Array]:
    """The columns that every sample has."""
    starts = np.cumsum([0, *(one.samples for one in before)])
    shard_of = np.repeat(np.arange(len(before)), [one.samples for one in before])
    keys, sources = table.column("key").to_pylist(), table.column("source").to_pylist()
    for row in np.flatnonzero(erased).tolist():
        shard = after[shard_of[row]]
        keys[row] = erased_key((shard.written or ("", shard.sha256))[1], row - int(starts[shard_of[row]]))
        sources[row] = ""
    names = pa.array([one.name for one in after], pa.string())
    return {
        "key": pa.array(keys, pa.large_string()),
        "shard": pa.DictionaryArray.from_arrays(pa.array(shard_of.astype(np.int32)), names),
        "label": pa.array(np.where(erased, -1, table.column("label").to_numpy())),
        "source": pa.array(sources, pa.large_string()),
    }


def _component(
    table: pa.Table, component: str, erased: np.ndarray[Any, np.dtype[np.bool_]], kept_words: frozenset[str]
) -> dict[str, pa.Array]:
    """The columns of a component, null in the erased rows but for `kept_words`. A word that no other row has is gone
    too.
    """
    kept = pa.array(np.arange(len(table)), mask=erased)
    columns = {}
    for name in table.column_names:
        before, _, word = name.rpartition(".")
        if before != component:
            continue
        column = table.column(name).combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        column = column if word in kept_words else column.take(kept)
        if word not in COMPONENT_COLUMNS and column.type == WORD:
            column = column.cast(pa.string()).dictionary_encode()
        columns[name] = column
    return columns
