"""Rewrite shards and parts of a manifest without erased samples, and delete files that no version refers to.

In a shard, the members of erased samples become zeros, and all others keep their offsets.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.shards.errors import ShardError
from maskstream.shards.format.checked_file import read_checked
from maskstream.shards.format.columns import (
    COMPONENT_COLUMNS,
    COMPONENTS_KEY,
    OFFSET,
    SHARDS_KEY,
    SIZE,
    WORD,
    ShardFacts,
    build_part_metadata,
)
from maskstream.shards.format.data_errors import REMEDY
from maskstream.shards.format.dataset import is_index, list_versions, name_version, read_description
from maskstream.shards.format.part_writer import encode_parquet
from maskstream.shards.format.rejects import ERASED, hash_erased_key, name_erased_tar, strip_tar_name
from maskstream.shards.format.tokenizer import TOKENIZER_JSON, find_tokenizer_name
from maskstream.shards.format.ustar import BLOCK_BYTES, CHUNK_BYTES, HashedReader
from maskstream.shards.format.verify import SplitCheck
from maskstream.shards.format.writer import HashedStream, member_header
from maskstream.shards.members.text import TOKENS
from maskstream.shards.stores.base import Store, stream
from maskstream.shards.stores.block_sums import SUMS
from maskstream.shards.stores.folders import is_elsewhere
from maskstream.shards.stores.output import Output


@dataclass(frozen=True, slots=True)
class _Edit:
    """Replacement of a tar's bytes from `begin` on: a header followed by `zeros` zero bytes."""

    begin: int
    header: bytes
    zeros: int

    @property
    def end(self) -> int:
        return self.begin + len(self.header) + self.zeros


def erase_from_shard(output: Output, check: SplitCheck, number: int, rows: Sequence[int], version: int) -> ShardFacts:
    """Rewrite shard `number` without the samples `rows` (manifest numbers), with its idx and sums, under a name with
    `version`.

    Returns:
        The facts of the new shard for the manifest.

    Raises:
        ShardError: The shard is damaged.
    """
    facts = check.shards[number]
    name = name_erased_tar(facts.name, version)
    edits = sorted(_list_edits(check, rows), key=lambda edit: edit.begin)
    whole = check.shard(number)
    with stream(output.store, facts.name) as file, output.writing(name) as written:
        reader, hashed = HashedReader(file, lambda size_bytes: None), HashedStream(written)
        for edit in edits:
            _copy(reader, hashed, edit.begin)
            hashed.write(edit.header)
            _write_zeros(hashed, edit.zeros)
            for _ in reader.chunks(edit.end - reader.position):
                pass
        _copy(reader, hashed, facts.size_bytes)
        if (reader.position, reader.sha256.hexdigest()) != (facts.size_bytes, facts.sha256):
            raise ShardError(f"{output.location}/{facts.name} has changed since it was written; {REMEDY}, then erase")
    kept = replace(whole, rows=whole.rows[[row not in rows for row in whole.rows.tolist()]])
    stem = name.removesuffix(".tar")
    output.publish(f"{stem}.idx", kept.index.encode("ascii"))
    output.publish(f"{stem}{SUMS}", hashed.sums.digest())
    first = facts.written or (facts.name, facts.sha256)
    return replace(facts, name=name, sha256=hashed.sha256.hexdigest(), written=first)


def _list_edits(check: SplitCheck, rows: Sequence[int]) -> Iterator[_Edit]:
    for row in rows:
        for component in check.manifest.components.values():
            if offset := int(component.offset[row]):
                size = int(component.size[row])
                yield _Edit(offset - BLOCK_BYTES, member_header(ERASED, size), size)


def _copy(reader: HashedReader, to: HashedStream, end: int) -> None:
    for chunk in reader.chunks(end - reader.position):
        to.write(chunk)


def _write_zeros(to: HashedStream, size: int) -> None:
    zeros = bytes(min(size, CHUNK_BYTES))
    while size > 0:
        to.write(zeros[:size])
        size -= len(zeros[:size])


KEPT = {TOKENS.name: frozenset({SIZE, *TOKENS.facts, *TOKENS.words})}
"""Facts of an erased member that are kept, by kind: texts are packed into rows by length, so the lengths keep all
others in place.
"""


def erase_from_part(
    store: Store, info: Mapping[str, Any], name: str, rows: Sequence[int], shards: Mapping[str, ShardFacts]
) -> tuple[bytes, set[str]]:
    """Return the part `name` without its samples `rows` (numbers in the part), and the sources of these samples.

    Args:
        store: Store of the split.
        info: Description of the version.
        name: Name of the part.
        rows: Numbers of the erased samples.
        shards: Facts of the rewritten shards by their former names.
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
        own = _erase_from_component(table, component, erased, KEPT.get(kinds[component], frozenset()))
        if own[f"{component}.{OFFSET}"].null_count == len(table) and kinds[component] not in KEPT:
            del kinds[component]
        else:
            columns |= own
    named = {column: columns[column] for column in table.column_names if column in columns}
    data = encode_parquet(pa.table(named, metadata=build_part_metadata(kinds, [one.to_json() for one in after])))
    return data, {*table.column("source").filter(pa.array(erased)).to_pylist()} - {""}


def _samples(
    table: pa.Table, erased: np.ndarray[Any, np.dtype[np.bool_]], before: list[ShardFacts], after: list[ShardFacts]
) -> dict[str, pa.Array]:
    """Return the columns that every sample has."""
    starts = np.cumsum([0, *(one.samples for one in before)])
    shard_of = np.repeat(np.arange(len(before)), [one.samples for one in before])
    keys, sources = table.column("key").to_pylist(), table.column("source").to_pylist()
    for row in np.flatnonzero(erased).tolist():
        shard = after[shard_of[row]]
        keys[row] = hash_erased_key((shard.written or ("", shard.sha256))[1], row - int(starts[shard_of[row]]))
        sources[row] = ""
    names = pa.array([one.name for one in after], pa.string())
    return {
        "key": pa.array(keys, pa.large_string()),
        "shard": pa.DictionaryArray.from_arrays(pa.array(shard_of.astype(np.int32)), names),
        "label": pa.array(np.where(erased, -1, table.column("label").to_numpy())),
        "source": pa.array(sources, pa.large_string()),
    }


def _erase_from_component(
    table: pa.Table, component: str, erased: np.ndarray[Any, np.dtype[np.bool_]], kept_words: frozenset[str]
) -> dict[str, pa.Array]:
    """Return a component's columns, null in erased rows except for `kept_words`.

    A dictionary value that no other row uses is removed too.
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


_OF_A_SHARD = (".tar", ".idx", SUMS)


def remove_what_no_version_names(output: Output) -> None:
    """Delete files that no version refers to.

    These are parts, rejects, lists of removed samples, tokenizers, and former tars of shards with erased samples. After
    a killed erasure, dataset.json may still refer to old files although all versions were rewritten.
    """
    infos = [read_description(output.store, version) for version in (None, *list_versions(output.store))]
    named = {name_version(info["version"]) for info in infos} | {name for info in infos for name in info["files"]}
    facts = {part["name"]: info["files"][part["name"]] for info in infos for part in info["parts"]}
    shards = [shard for name in facts if not is_elsewhere(name) for shard in _shards(output, name, facts)]
    kept = {shard.name for shard in shards}
    stems = {strip_tar_name(shard.written[0]) for shard in shards if shard.written is not None}
    if TOKENIZER_JSON not in map(find_tokenizer_name, infos):
        output.remove([TOKENIZER_JSON])
    old = [name for name in output.names() if _is_earlier(name, stems, kept) or (is_index(name) and name not in named)]
    output.remove(old)


def _shards(output: Output, name: str, facts: dict[str, dict[str, object]]) -> list[ShardFacts]:
    with pq.ParquetFile(pa.BufferReader(read_checked(output.store, name, facts))) as file:
        return [ShardFacts.from_json(one) for one in json.loads(file.schema_arrow.metadata[SHARDS_KEY])]


def _is_earlier(name: str, stems: set[str], kept: set[str]) -> bool:
    """Return whether a file belongs to a former tar of one of these shards, and not to a kept one."""
    suffix = PurePosixPath(name).suffix
    if suffix not in _OF_A_SHARD:
        return False
    tar = f"{name.removesuffix(suffix)}.tar"
    return tar not in kept and strip_tar_name(tar) in stems
