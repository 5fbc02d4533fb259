"""Samples that a split leaves out: rejects, removed samples, erased samples, and samples held out as another split.

The numbers of removed samples are stored in a file listed in dataset.json. After `maskstream split`, both splits also
have a file with the numbers of their samples among all samples of their parts. An erased sample leaves zeros in its
tar, and a manifest row that keeps its slot in the order. Its members are zero, at unchanged offsets, under the name
`__erased__`, which WebDataset readers skip. Its row has a new key and no source, label or components. The tar is
renamed, so that it is never read with an earlier index.
"""

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.shards.arrays import Int64s
from maskstream.shards.errors import ShardError
from maskstream.shards.stores.base import Store

from .checked_file import SUM, read_checked
from .columns import FORMAT, FORMAT_KEY
from .data_errors import REMEDY, parsing
from .part_writer import encode_parquet
from .sample import Reject

REMOVED, SELECTED = "removed", "selected"
"""Fields of dataset.json with the names of these files: if samples were removed, and if the split has only some of its
parts' samples.
"""
CURATED = "curated"
"""Column that marks the removed samples that only a curation left out, and their number in the counts."""
_COLUMN = "sample"


def encode_numbers(samples: Int64s, curated: Int64s | None = None) -> bytes:
    """Return a file with numbers of samples, int64 (n,).

    Args:
        samples: Numbers of the samples.
        curated: Numbers among them that only a curation left out.
    """
    columns: dict[str, npt.NDArray[Any]] = {_COLUMN: samples}
    if curated is not None and len(curated):
        columns[CURATED] = np.isin(samples, curated)
    return encode_parquet(pa.table(columns, metadata={FORMAT_KEY: FORMAT.encode()}))


def count_part_samples(info: Mapping[str, Any]) -> int:
    """Return the number of samples in all parts of the split, including those that it leaves out."""
    return sum(part["samples"] for part in info["parts"])


def read_removed(store: Store, info: Mapping[str, Any]) -> Int64s:
    """Return the sorted numbers of the removed samples among the samples of all parts, int64 (R,)."""
    found = _read_numbers(store, info, REMOVED)
    return np.empty(0, np.int64) if found is None else found


def read_curated(store: Store, info: Mapping[str, Any]) -> Int64s:
    """Return the removed samples that only a curation left out, sorted, int64 (n,). Earlier versions may contain
    them.
    """
    if not info["counts"].get(CURATED):
        return np.empty(0, np.int64)
    data = read_checked(store, info[REMOVED], info["files"])
    with parsing(f"{store.location}/{info[REMOVED]}"), pq.ParquetFile(pa.BufferReader(data)) as file:
        flags = file.read([CURATED], use_threads=False).column(CURATED).to_numpy()
        curated: Int64s = read_removed(store, info)[flags.astype(bool, casting="equiv")]
    return curated


def read_selected(store: Store, info: Mapping[str, Any]) -> Int64s | None:
    """Return the sorted numbers of the split's samples among the samples of all parts, int64 (N,); None for all."""
    found = _read_numbers(store, info, SELECTED)
    if found is not None and len(found) != info["counts"]["samples"]:
        raise ShardError(
            f"{store.location}/{info[SELECTED]} has {len(found)} samples, but dataset.json lists "
            f"{info['counts']['samples']}; {REMEDY}"
        )
    return found


def read_selected_sum(info: Mapping[str, Any]) -> str:
    """Return the checksum of the file with the split's sample numbers; "" if it has all samples of its parts."""
    return str(info["files"][info[SELECTED]][SUM]) if SELECTED in info else ""


def _read_numbers(store: Store, info: Mapping[str, Any], what: str) -> Int64s | None:
    if what not in info:
        return None
    data = read_checked(store, info[what], info["files"])
    path = f"{store.location}/{info[what]}"
    with parsing(path), pq.ParquetFile(pa.BufferReader(data)) as file:
        column = file.read([_COLUMN], use_threads=False).column(_COLUMN)
        samples: Int64s = column.to_numpy().astype(np.int64, casting="equiv")
        if np.diff(np.concatenate([[-1], samples, [count_part_samples(info)]])).min() < 1:
            raise ShardError(f"{path} does not contain the sorted sample numbers of the split; {REMEDY}")
    samples.flags.writeable = False
    return samples


ERASED = "__erased__"
"""Return the name of a member of an erased sample."""
_ERASED_KEYS = "erased/"
_TAR = re.compile(r"(.*?)(?:\.e\d+)?\.tar", re.DOTALL)


def hash_erased_key(sha256: str, row: int) -> str:
    """Return the key of an erased sample: the key of its shard, from the shard's original checksum, and its number in
    it.
    """
    return f"{_ERASED_KEYS}{sha256[:16]}/{row:06d}"


def is_erased_key(key: str) -> bool:
    """Return whether a key belongs to an erased sample."""
    return key.startswith(_ERASED_KEYS)


def name_erased_tar(name: str, version: int) -> str:
    """Return the name of a tar from which samples were erased for a version."""
    return f"{strip_tar_name(name)}.e{version}.tar"


def strip_tar_name(name: str) -> str:
    """Return the name of a tar without its suffix and without the version of an erasure."""
    found = _TAR.fullmatch(name)
    return found[1] if found else name


_COLUMNS = [field.name for field in fields(Reject)]


def read_rejects(store: Store, info: Mapping[str, Any]) -> list[Reject]:
    """Return the rejects of the split in a store; `info` is its dataset.json.

    Raises ShardError if its file is missing, differs from its checksum, or does not have the format's columns.
    """
    path = f"{store.location}/{info['rejects']}"
    data = read_checked(store, info["rejects"], info["files"])
    with parsing(path):
        # pq.read_table would import pandas and start threads, which abort a process that exits just then
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            table = file.read(use_threads=False)
        table.validate(full=True)
        found = (table.schema.metadata or {}).get(FORMAT_KEY, b"none").decode(errors="replace")
        columns = {name: str(table.schema.field(name).type) for name in table.schema.names}
        nulls = sum(column.null_count for column in table.columns)
        if found != FORMAT or columns != dict.fromkeys(_COLUMNS, "string") or nulls:
            raise ShardError(
                f"{path} has the format {found!r}, the columns {columns} and {nulls} nulls; expected {FORMAT!r}, the "
                f"columns {', '.join(_COLUMNS)} of strings, and no nulls; {REMEDY}"
            )
        return [Reject(**row) for row in table.to_pylist()]
