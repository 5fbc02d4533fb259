"""The columns of the parts of a manifest and of rejects.parquet, and their tables.

Every sample has `key`, `shard` (dictionary-encoded file name), `label` int64 (-1 for none) and `source`. Every
component NAME (the whole ending of a member, such as `cam0.mp4`) has `NAME.offset` and `NAME.size` int64 (of its data
in the tar, in bytes), `NAME.xxh3_128` (16 bytes), and one column for each fact (int64 or float64), word
(dictionary-encoded) and list (of int64). Samples without the component have null. So do samples with a long word that
few other samples of the part share. The file's metadata stores the kind of each component and the part's shards; facts,
words and lists are distinguished by their Arrow type.

A word is a dictionary column, since an enumeration of codecs would need a new version of its kind for every new codec.
All processes keep the words in memory, so a word of more than 64 characters, such as a video's header, is stored only
if several samples share it.

`ColumnReader` reads the columns of a part into arrays and checks their types. No data is in memory twice: arrays are
allocated in full length and filled row group by row group.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.shards.arrays import Bools, Int32s, Int64s, UInt8s
from maskstream.shards.errors import ShardError
from maskstream.shards.stores.folders import file_name

from .data_errors import REMEDY
from .records import LONG_WORD, Placed, ShardRecord
from .sample import Reject

T = TypeVar("T")

_TYPES: dict[str, type] = {"name": str, "samples": int, "size_bytes": int, "sha256": str}


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardFacts:
    """Facts about a shard as a whole.

    Attributes:
        name: Name of the tar in the folder of its part. For a foreign tar, its path from that folder.
        samples: Number of samples.
        size_bytes: Size of the tar.
        sha256: Checksum of the tar in hex.
        packets_sha256: Checksum in hex of the packets file of a foreign tar.
        written: Name and sha256 of the tar as it was first written, if samples have been erased from it since.
    """

    name: str
    samples: int
    size_bytes: int
    sha256: str
    packets_sha256: str | None = None
    written: tuple[str, str] | None = None

    @classmethod
    def of(cls, shard: ShardRecord) -> Self:
        return cls(
            name=shard.name,
            samples=len(shard.rows),
            size_bytes=shard.size_bytes,
            sha256=shard.sha256,
            packets_sha256=shard.packets_sha256,
        )

    def to_json(self) -> dict[str, Any]:
        facts = {"name": self.name, "samples": self.samples, "size_bytes": self.size_bytes, "sha256": self.sha256}
        packets = {} if self.packets_sha256 is None else {"packets_sha256": self.packets_sha256}
        return facts | packets | ({} if self.written is None else {"written": [*self.written]})

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Return the facts in JSON. Raises ValueError for data that `to_json` does not write."""
        if not isinstance(data, dict) or not all(isinstance(data.get(name), kind) for name, kind in _TYPES.items()):
            raise ValueError(f"the shard entry {data!r} is invalid; it must have {', '.join(_TYPES)}")
        packets = data.get("packets_sha256")
        if not (packets is None or isinstance(packets, str)) or min(data["samples"], data["size_bytes"]) < 0:
            raise ValueError(f"the shard {data['name']!r} has impossible values: {data}")
        written = data.get("written")
        if written is not None:
            name, sha256 = written
            written = str(name), str(sha256)
        return cls(**{name: data[name] for name in _TYPES}, packets_sha256=packets, written=written)

    def check_part_name(self, *, foreign: bool) -> str | None:
        """Return why the name is invalid, or None: it must be a tar name, without folders unless `foreign`."""
        in_folder = foreign or "/" not in self.name
        if self.name.endswith(".tar") and in_folder and b"\0" not in self.name.encode():
            return None
        legal = "paths of tars" if foreign else "names of tars in the folder itself, such as 'NAME-000000.tar'"
        return f"a shard is named {self.name!r}; expected {legal}"


FINGERPRINT_DIGITS = 32


def make_fingerprint(shards: Iterable[ShardFacts], *, foreign: bool, selected: Int64s | None = None) -> str:
    """Compute the fingerprint of a split: 32 hex digits of a sha256 of its shards and samples.

    It covers the names and checksums of the shards as they were first written and, if the split lacks some of their
    samples, the numbers of the selected ones. The folder of a shard counts only for foreign tars, since the same shards
    merged from other folders have the same samples.

    Args:
        shards: Facts of the shards, in order.
        foreign: True for an index of foreign tars.
        selected: Numbers of the samples that the split has, int64 (n,); None for all.
    """
    digest = hashlib.sha256()
    for shard in shards:
        name, sha256 = shard.written or (shard.name if foreign else file_name(shard.name), shard.sha256)
        digest.update(f"{name} {sha256}\n".encode())
    if selected is not None:
        digest.update(b"selected " + selected.astype("<i8").tobytes())
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


FORMAT = "maskstream/4"

OFFSET, SIZE, DIGEST = "offset", "size", "xxh3_128"
DIGEST_BYTES = 16

SAMPLE_COLUMNS: dict[str, pa.DataType] = {
    "key": pa.large_string(),
    "shard": pa.dictionary(pa.int32(), pa.string()),
    "label": pa.int64(),
    "source": pa.large_string(),
}
COMPONENT_COLUMNS: dict[str, pa.DataType] = {OFFSET: pa.int64(), SIZE: pa.int64(), DIGEST: pa.binary(DIGEST_BYTES)}
FACTS = {pa.int64(): np.dtype(np.int64), pa.float64(): np.dtype(np.float64)}
WORD, LIST = pa.dictionary(pa.int32(), pa.string()), pa.list_(pa.int64())

SHARED_BY = 4
"""A part stores a long word only if at least this many of its samples share it, because the words of all parts are in
memory.
"""
MOST_SHARED = 1024
"""Most long words that a part stores for a component; the most frequent ones are kept."""

FORMAT_KEY, COMPONENTS_KEY, SHARDS_KEY = b"maskstream", b"maskstream.components", b"maskstream.shards"


def build_part_table(shards: Sequence[ShardRecord]) -> pa.Table:
    """Build a part's table, with one row per sample in the order of `shards` and of each tar.

    Raises:
        ShardError: A component has two kinds.
    """
    rows = [row for shard in shards for row in shard.rows]
    numbers = np.repeat(np.arange(len(shards), dtype=np.int32), [len(shard.rows) for shard in shards])
    names = pa.array([shard.name for shard in shards], pa.string())
    columns: dict[str, pa.Array] = {
        "key": pa.array([row.key for row in rows], SAMPLE_COLUMNS["key"]),
        "shard": pa.DictionaryArray.from_arrays(pa.array(numbers), names),
        "label": pa.array([row.label for row in rows], SAMPLE_COLUMNS["label"]),
        "source": pa.array([row.source for row in rows], SAMPLE_COLUMNS["source"]),
    }
    kinds: dict[str, str] = {}
    for name in sorted({name for row in rows for name in row.members}):
        placed = [row.members.get(name) for row in rows]
        found = sorted({member.kind for member in placed if member is not None})
        if len(found) > 1:
            raise ShardError(
                f"component {name!r} has the kinds {', '.join(found)}; it must have the same kind in all samples"
            )
        kinds[name] = found[0]
        columns |= {f"{name}.{word}": column for word, column in _select_component_columns(placed).items()}
    described = [ShardFacts.of(shard).to_json() for shard in shards]
    return pa.table(columns, metadata=build_part_metadata(kinds, described))


def build_part_metadata(kinds: Mapping[str, str], shards: Sequence[dict[str, Any]]) -> dict[bytes, bytes]:
    """Return the metadata of a part: the format, the kinds of its components, and its shards as
    `ShardFacts.to_json`.
    """
    return {
        FORMAT_KEY: FORMAT.encode(),
        COMPONENTS_KEY: json.dumps(dict(kinds)).encode(),
        SHARDS_KEY: json.dumps(list(shards)).encode(),
    }


def _select_component_columns(placed: Sequence[Placed | None]) -> dict[str, pa.Array]:
    """Return the columns of one component, by their name without the component's."""
    columns: dict[str, pa.Array] = {
        OFFSET: pa.array([None if m is None else m.offset for m in placed], COMPONENT_COLUMNS[OFFSET]),
        SIZE: pa.array([None if m is None else m.size for m in placed], COMPONENT_COLUMNS[SIZE]),
        DIGEST: pa.array([None if m is None else m.digest for m in placed], COMPONENT_COLUMNS[DIGEST]),
    }
    for name, values in _list_by_name([m.facts if m else {} for m in placed]).items():
        columns[name] = pa.array(values, pa.float64() if any(isinstance(v, float) for v in values) else pa.int64())
    for name, given in _list_by_name([m.words if m else {} for m in placed]).items():
        words = _find_shared_words(given)
        if any(word is not None for word in words):
            columns[name] = pa.array(words, WORD)
    for name, lists in _list_by_name([m.lists if m else {} for m in placed]).items():
        columns[name] = _list_column(lists)
    return columns


def _list_by_name(members: Sequence[Mapping[str, T]]) -> dict[str, list[T | None]]:
    """Return the value of each member by name; None where it has none."""
    return {name: [own.get(name) for own in members] for name in sorted({name for own in members for name in own})}


def _find_shared_words(words: Sequence[str | None]) -> list[str | None]:
    """Set long words that occur in only a few samples to None."""
    counts = Counter(word for word in words if word is not None and len(word) > LONG_WORD)
    often = sorted((word for word, count in counts.items() if count >= SHARED_BY), key=lambda w: (-counts[w], w))
    rare = counts.keys() - often[:MOST_SHARED]
    return [None if word in rare else word for word in words]


def _list_column(lists: Sequence[Any]) -> pa.Array:
    """Build a column with one list, or null, per row."""
    starts = pa.array(accumulate((0 if values is None else len(values) for values in lists), initial=0), pa.int32())
    absent = pa.array([values is None for values in lists], pa.bool_())
    flat = np.concatenate([values for values in lists if values is not None])
    return pa.ListArray.from_arrays(starts, pa.array(flat, pa.int64()), mask=absent)


def build_rejects_table(rejects: Sequence[Reject]) -> pa.Table:
    """Build a table with one row per reject: source, stage, reason."""
    columns = {
        name: pa.array([getattr(r, name) for r in rejects], pa.string()) for name in ("source", "stage", "reason")
    }
    return pa.table(columns, metadata={FORMAT_KEY: FORMAT.encode()})


class ColumnReader:
    """Columns of an open part, or of some of its rows. Each is read on demand into read-only arrays."""

    def __init__(self, path: str, file: pq.ParquetFile) -> None:
        self.path = path
        self._file = file
        self._schema: pa.Schema = file.schema_arrow
        metadata = self._schema.metadata or {}
        found = metadata.get(FORMAT_KEY, b"none").decode(errors="replace")
        if found != FORMAT:
            raise ShardError(f"{path} has the format {found!r}; this version of maskstream reads {FORMAT!r}: {REMEDY}")
        self.names: list[str] = self._schema.names
        self.kinds: dict[str, str] = json.loads(metadata.get(COMPONENTS_KEY, b"{}"))
        """The kind of each component."""
        if not all(isinstance(kind, str) for kind in self.kinds.values()):
            raise ShardError(f"{path}: the component kinds are {self.kinds}; each must be a string; {REMEDY}")
        self.shards = [ShardFacts.from_json(one) for one in json.loads(metadata.get(SHARDS_KEY, b"[]"))]
        """The shards of the part."""
        self._chosen: Int64s | None = None

    def select(self, rows: Int64s | None) -> ColumnReader:
        """Return the columns restricted to some rows, int64 (n,), sorted; None for all."""
        if rows is None:
            return self
        selected = copy(self)
        selected._chosen = rows
        names, codes = selected.codes("shard", SAMPLE_COLUMNS["shard"])
        held = Counter(dict(zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True)))
        selected.shards = [replace(one, samples=held[one.name]) for one in self.shards]
        return selected

    def _in_rows(self, column: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return column if self._chosen is None else column[self._chosen]

    @property
    def rows(self) -> int:
        """Number of samples."""
        return int(self._file.metadata.num_rows) if self._chosen is None else len(self._chosen)

    def list_word_types(self, component: str) -> dict[str, pa.DataType]:
        """Return the types of a component's columns, by their name without the component's."""
        split = {name: name.rpartition(".") for name in self.names}
        return {word: self._schema.field(name).type for name, (before, _, word) in split.items() if before == component}

    def chunks(self, name: str, kind: pa.DataType) -> Iterator[pa.Array]:
        """Yield a column as one array per row group, with validated offsets, codes and strings."""
        if name not in self.names:
            raise ShardError(f"{self.path} has no column {name!r}; {REMEDY}")
        if self._schema.field(name).type != kind:
            raise ShardError(f"{self.path}: column {name!r} is {self._schema.field(name).type}, not {kind}; {REMEDY}")
        for group in range(self._file.num_row_groups):
            # without Arrow's threads, which may abort a process at exit
            for chunk in self._file.read_row_group(group, columns=[name], use_threads=False).column(name).chunks:
                chunk.validate(full=True)
                yield chunk

    def strings(self, name: str) -> pa.LargeStringArray:
        """Return a column of strings. Raises ShardError if it has nulls."""
        whole = pa.chunked_array(list(self.chunks(name, pa.large_string())), pa.large_string()).combine_chunks()
        whole = pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
        if whole.null_count:
            raise ShardError(f"{self.path}: column {name!r} has {whole.null_count} nulls; expected none; {REMEDY}")
        return whole if self._chosen is None else whole.take(_make_indices(self._chosen))

    def numbers(self, name: str, kind: pa.DataType, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return a column of numbers, (rows,) of type `dtype`; null becomes 0."""
        chunks = self.chunks(name, kind)
        filled = (_fill_nulls(chunk, 0) for chunk in chunks)
        return self._in_rows(_join_columns(filled, self._file.metadata.num_rows, dtype))

    def codes(self, name: str, kind: pa.DataType) -> tuple[list[str], Int32s]:
        """Return the words of a dictionary-encoded column, and the number of each row's word, int32 (rows,); -1 for
        null.
        """
        chunks = pa.chunked_array(list(self.chunks(name, kind)), kind).unify_dictionaries().chunks
        words = chunks[0].dictionary.to_pylist() if chunks else []
        numbers = (_fill_nulls(chunk.indices, -1) for chunk in chunks)
        return words, self._in_rows(_join_columns(numbers, self._file.metadata.num_rows, np.int32))

    def digests(self, name: str, kind: pa.DataType) -> UInt8s:
        """Return a column of digests, uint8 (N, 16); null becomes 0."""
        flat = (_decode_digests(chunk).reshape(-1) for chunk in self.chunks(name, kind))
        whole = _join_columns(flat, self._file.metadata.num_rows * DIGEST_BYTES, np.uint8)
        return self._in_rows(whole.reshape(-1, DIGEST_BYTES))

    def lists(self, name: str, kind: pa.DataType) -> tuple[Int64s, npt.NDArray[np.signedinteger]]:
        """Return the length of each row's list, int64 (rows,), and the joined values in the narrowest signed type that
        fits.
        """
        lengths: list[Int32s] = []
        values: npt.NDArray[Any] = np.empty(self._count_most_values(name), np.int8)
        end = 0
        for chunk in self.chunks(name, pa.list_(kind)):
            offsets = _values(chunk.offsets)
            lengths.append(np.diff(offsets))
            flat = _values(chunk.values)[offsets[0] : offsets[-1]]
            bound = max(flat.max(initial=0), -1 - flat.min(initial=0))
            needed = np.min_scalar_type(-1 - int(bound))
            if needed.itemsize > values.itemsize:
                narrow, values = values, np.empty(len(values), needed)
                values[:end] = narrow[:end]
            values[end : end + len(flat)] = flat
            end += len(flat)
        values = values[:end]
        values.flags.writeable = False
        counts = _join_columns(lengths, self._file.metadata.num_rows, np.int64)
        if self._chosen is None:
            return counts, values
        chosen = np.isin(np.arange(len(counts)), self._chosen, assume_unique=True)
        return counts[self._chosen], values[np.repeat(chosen, counts)]

    def _count_most_values(self, name: str) -> int:
        """Return an upper bound of the values in a column of lists. Unused memory of the bound is never touched, so it
        is free.
        """
        groups = [self._file.metadata.row_group(group) for group in range(self._file.num_row_groups)]
        leaves = [group.column(i) for group in groups for i in range(group.num_columns)]
        return sum(leaf.num_values for leaf in leaves if leaf.path_in_schema.startswith(f"{name}."))


def _fill_nulls(column: pa.Array, value: int) -> npt.NDArray[Any]:
    """Return a column of numbers with `value` in place of null."""
    if not column.null_count:
        return _values(column)
    kind = _values(column[:0]).dtype  # `to_pandas_dtype` of pyarrow 17 needs pandas
    values = _raw(column, kind.itemsize).view(kind)
    filled: npt.NDArray[Any] = np.where(_is_valid(column), values, values.dtype.type(value))
    return filled


def _values(column: pa.Array) -> npt.NDArray[Any]:
    """Return a column of numbers without nulls. `to_numpy` would import pandas if installed, which takes 0.3 s."""
    values: npt.NDArray[Any] = np.from_dlpack(column)
    return values


def _make_indices(rows: Int64s) -> pa.Array:
    """Return row numbers for `take`. `pa.array` would import pandas."""
    return pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(rows)])


def _raw(column: pa.Array, itemsize: int) -> UInt8s:
    """Return the bytes of a column of values of equal size; nulls have arbitrary bytes."""
    return np.frombuffer(column.buffers()[1], np.uint8, len(column) * itemsize, column.offset * itemsize)


def _decode_digests(column: pa.Array) -> UInt8s:
    digests = _raw(column, DIGEST_BYTES).reshape(-1, DIGEST_BYTES)
    return np.where(_is_valid(column)[:, None], digests, np.uint8(0)) if column.null_count else digests


def _is_valid(column: pa.Array) -> Bools:
    """Return where a column with nulls has a value, bool (n,).

    pyarrow's own functions are in a module that takes 0.05 s to import, and they import pandas for a scalar.
    """
    bits = np.unpackbits(np.frombuffer(column.buffers()[0], np.uint8), bitorder="little")
    return bits[column.offset : column.offset + len(column)].view(np.bool_)


def _join_columns(arrays: Iterable[npt.NDArray[Any]], length: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    joined = np.empty(length, dtype)
    end = 0
    for array in arrays:
        joined[end : end + len(array)] = array
        end += len(array)
    if end != length:
        raise ShardError(
            f"a column in a part of the manifest has {end} values, but the part has {length} rows; {REMEDY}"
        )
    joined.flags.writeable = False
    return joined
