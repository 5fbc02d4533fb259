"""Reads the columns of a part of a manifest into arrays and checks their types.

Nothing is in memory twice: arrays are allocated in full length and filled row group by row group.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.shards.errors import ShardError

from .columns import COMPONENTS_KEY, DIGEST_BYTES, FORMAT, FORMAT_KEY, SHARDS_KEY
from .damage import REMEDY
from .shard_facts import ShardFacts


class ColumnReader:
    """The columns of an open part. Each is read on demand into read-only arrays."""

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
            raise ShardError(f"{path}: the kinds of components are {self.kinds}; each must be a text; {REMEDY}")
        self.shards = [ShardFacts.from_json(one) for one in json.loads(metadata.get(SHARDS_KEY, b"[]"))]
        """The shards of the part."""

    @property
    def rows(self) -> int:
        """The number of samples."""
        return int(self._file.metadata.num_rows)

    def words_of(self, component: str) -> dict[str, pa.DataType]:
        """The columns of a component by the part of their name after the component, and their types."""
        split = {name: name.rpartition(".") for name in self.names}
        return {word: self._schema.field(name).type for name, (before, _, word) in split.items() if before == component}

    def chunks(self, name: str, kind: pa.DataType) -> Iterator[pa.Array]:
        """The column, one array per row group, whose offsets, codes and texts are valid."""
        if name not in self.names:
            raise ShardError(f"{self.path} has no column {name!r}; {REMEDY}")
        if self._schema.field(name).type != kind:
            raise ShardError(f"{self.path}: column {name!r} is {self._schema.field(name).type}, not {kind}; {REMEDY}")
        for group in range(self._file.num_row_groups):
            # without threads of Arrow, which may abort a process that ends
            for chunk in self._file.read_row_group(group, columns=[name], use_threads=False).column(name).chunks:
                chunk.validate(full=True)
                yield chunk

    def strings(self, name: str) -> pa.LargeStringArray:
        """A column of texts without nulls."""
        whole = pa.chunked_array(list(self.chunks(name, pa.large_string())), pa.large_string()).combine_chunks()
        whole = pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
        if whole.null_count:
            raise ShardError(f"{self.path}: column {name!r} has {whole.null_count} nulls; none are legal; {REMEDY}")
        return whole

    def numbers(self, name: str, kind: pa.DataType, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A column of numbers; null becomes 0."""
        chunks = self.chunks(name, kind)
        filled = ((chunk.fill_null(0) if chunk.null_count else chunk).to_numpy() for chunk in chunks)
        return _joined(filled, self._file.metadata.num_rows, dtype)

    def codes(self, name: str, kind: pa.DataType) -> tuple[list[str], npt.NDArray[np.int32]]:
        """The words of a dictionary-encoded column, and the number of each row's word; -1 for null."""
        chunks = pa.chunked_array(list(self.chunks(name, kind)), kind).unify_dictionaries().chunks
        words = chunks[0].dictionary.to_pylist() if chunks else []
        numbers = (chunk.indices.fill_null(-1).to_numpy() for chunk in chunks)
        return words, _joined(numbers, self._file.metadata.num_rows, np.int32)

    def digests(self, name: str, kind: pa.DataType) -> npt.NDArray[np.uint8]:
        """A column of digests, uint8 (N, 16); null becomes 0."""
        filled = (chunk.fill_null(bytes(DIGEST_BYTES)) for chunk in self.chunks(name, kind))
        flat = (np.frombuffer(c.buffers()[1], np.uint8, len(c) * DIGEST_BYTES, c.offset * DIGEST_BYTES) for c in filled)
        return _joined(flat, self._file.metadata.num_rows * DIGEST_BYTES, np.uint8).reshape(-1, DIGEST_BYTES)

    def lists(self, name: str, kind: pa.DataType) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.signedinteger]]:
        """The length of each row's list, and the values of all lists as the narrowest signed integers that fit."""
        lengths: list[npt.NDArray[np.int32]] = []
        values: npt.NDArray[Any] = np.empty(self._most_values(name), np.int8)
        end = 0
        for chunk in self.chunks(name, pa.list_(kind)):
            lengths.append(np.diff(chunk.offsets.to_numpy()))
            flat = chunk.flatten().to_numpy()
            bound = max(flat.max(initial=0), -1 - flat.min(initial=0))
            needed = np.min_scalar_type(-1 - int(bound))
            if needed.itemsize > values.itemsize:
                narrow, values = values, np.empty(len(values), needed)
                values[:end] = narrow[:end]
            values[end : end + len(flat)] = flat
            end += len(flat)
        values = values[:end]
        values.flags.writeable = False
        return _joined(lengths, self._file.metadata.num_rows, np.int64), values

    def _most_values(self, name: str) -> int:
        """An upper bound of the values in a column of lists; unused memory costs nothing."""
        groups = [self._file.metadata.row_group(group) for group in range(self._file.num_row_groups)]
        leaves = [group.column(i) for group in groups for i in range(group.num_columns)]
        return sum(leaf.num_values for leaf in leaves if leaf.path_in_schema.startswith(f"{name}."))


def _joined(arrays: Iterable[npt.NDArray[Any]], length: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    joined = np.empty(length, dtype)
    end = 0
    for array in arrays:
        joined[end : end + len(array)] = array
        end += len(array)
    if end != length:
        raise ShardError(f"a column of a part of the manifest has {end} values, but it has {length} rows; {REMEDY}")
    joined.flags.writeable = False
    return joined
