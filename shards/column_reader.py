"""The columns of a manifest.parquet, checked and turned into arrays, with little in memory twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from .columns import DIGEST_BYTES, FORMAT
from .errors import ShardError

REMEDY = "run `maskstream shards` again to write it anew"


class ColumnReader:
    """The columns of an open manifest; each is read when it is asked for, into arrays that are read-only."""

    def __init__(self, path: Path, file: pq.ParquetFile) -> None:
        self.path = path
        self._file = file
        self._schema: pa.Schema = file.schema_arrow
        found = (self._schema.metadata or {}).get(b"maskstream", b"nothing").decode(errors="replace")
        if found != FORMAT:
            raise ShardError(
                f"{path} is not a manifest of this version: its format is {found!r}, not {FORMAT!r}; {REMEDY}"
            )
        self.names: list[str] = self._schema.names

    def chunks(self, name: str, kind: pa.DataType) -> Iterator[pa.Array]:
        """The column, one array per row group."""
        if name not in self.names:
            raise ShardError(f"{self.path} has no column {name!r}; {REMEDY}")
        if self._schema.field(name).type != kind:
            raise ShardError(f"{self.path}: column {name!r} is {self._schema.field(name).type}, not {kind}; {REMEDY}")
        for group in range(self._file.num_row_groups):
            yield from self._file.read_row_group(group, columns=[name]).column(0).chunks

    def strings(self, name: str) -> pa.StringArray:
        return pa.chunked_array(list(self.chunks(name, pa.string())), pa.string()).combine_chunks()

    def numbers(self, name: str, kind: pa.DataType, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Nulls become 0."""
        chunks = self.chunks(name, kind)
        return _joined([(chunk.fill_null(0) if chunk.null_count else chunk).to_numpy() for chunk in chunks], dtype)

    def codes(self, name: str, kind: pa.DataType) -> tuple[list[str], npt.NDArray[np.int32]]:
        """The words of a dictionary-encoded column, and for each row the number of its word, -1 for null."""
        chunks = pa.chunked_array(list(self.chunks(name, kind)), kind).unify_dictionaries().chunks
        words = chunks[0].dictionary.to_pylist() if chunks else []
        return words, _joined([chunk.indices.fill_null(-1).to_numpy() for chunk in chunks], np.int32)

    def digests(self, name: str, kind: pa.DataType) -> npt.NDArray[np.uint8]:
        """Uint8 (N, 16), 0 for null."""
        filled = (chunk.fill_null(bytes(DIGEST_BYTES)) for chunk in self.chunks(name, kind))
        flat = [np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * DIGEST_BYTES) for chunk in filled]
        return _joined(flat, np.uint8).reshape(-1, DIGEST_BYTES)

    def lists(self, name: str, kind: pa.DataType) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.signedinteger]]:
        """The length of each row's list, and the values of all, in the narrowest signed integers that hold them."""
        lengths, values = [], []
        for chunk in self.chunks(name, pa.list_(kind)):
            lengths.append(np.diff(chunk.offsets.to_numpy()))
            flat = chunk.flatten().to_numpy()
            bound = max(flat.max(initial=0), -1 - flat.min(initial=0))
            values.append(flat.astype(np.min_scalar_type(-1 - int(bound))))
        return _joined(lengths, np.int64), _joined(values, np.result_type(np.int8, *(v.dtype for v in values)))


def _joined(arrays: Sequence[npt.NDArray[Any]], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    joined = np.concatenate([np.zeros(0, dtype), *arrays], dtype=dtype)
    joined.flags.writeable = False
    return joined
