"""Deletes the files of a split that no version names any more."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.shards.format.checked_file import read_checked
from maskstream.shards.format.columns import SHARDS_KEY
from maskstream.shards.format.dataset import is_index, read_dataset_json, version_name, versions_of
from maskstream.shards.format.removed import stem_of
from maskstream.shards.format.shard_facts import ShardFacts
from maskstream.shards.format.tokenizer import TOKENIZER_JSON, tokenizer_name
from maskstream.shards.stores.block_sums import SUMS
from maskstream.shards.stores.folders import is_elsewhere
from maskstream.shards.stores.output import Output

_OF_A_SHARD = (".tar", ".idx", SUMS)


def remove_what_no_version_names(output: Output) -> None:
    """Delete parts, rejects, lists of removed samples and tokenizers that no version names, and earlier tars of shards
    from which samples were erased. Nothing else is touched.
    """
    infos = [read_dataset_json(output.store, version) for version in versions_of(output.store)]
    named = {version_name(info["version"]) for info in infos} | {name for info in infos for name in info["files"]}
    facts = {part["name"]: info["files"][part["name"]] for info in infos for part in info["parts"]}
    shards = [shard for name in facts if not is_elsewhere(name) for shard in _shards(output, name, facts)]
    kept = {shard.name for shard in shards}
    stems = {stem_of(shard.written[0]) for shard in shards if shard.written is not None}
    if TOKENIZER_JSON not in map(tokenizer_name, infos):
        output.remove([TOKENIZER_JSON])
    old = [name for name in output.names() if _is_earlier(name, stems, kept) or (is_index(name) and name not in named)]
    output.remove(old)


def _shards(output: Output, name: str, facts: dict[str, dict[str, object]]) -> list[ShardFacts]:
    with pq.ParquetFile(pa.BufferReader(read_checked(output.store, name, facts))) as file:
        return [ShardFacts.from_json(one) for one in json.loads(file.schema_arrow.metadata[SHARDS_KEY])]


def _is_earlier(name: str, stems: set[str], kept: set[str]) -> bool:
    """Whether a file belongs to a tar that one of these shards was, and to none of those that are kept."""
    suffix = PurePosixPath(name).suffix
    if suffix not in _OF_A_SHARD:
        return False
    tar = f"{name.removesuffix(suffix)}.tar"
    return tar not in kept and stem_of(tar) in stems
