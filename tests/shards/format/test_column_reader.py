"""Columns of any number of row groups come back as they were written, as narrow as they can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskstream.shards.errors import ShardError
from maskstream.shards.format.columns import DIGEST_BYTES, FORMAT, ColumnReader
from maskstream.shards.format.manifest import Manifest

DIGEST = pa.binary(DIGEST_BYTES)
LISTS = st.lists(
    st.none() | st.lists(st.integers(-(1 << 40), 1 << 40) | st.integers(-128, 127), max_size=4), max_size=9
)


def reader_of(path: Path, column: pa.Array, rows: int) -> ColumnReader:
    pq.write_table(pa.table({"x": column}, metadata={"maskstream": FORMAT}), path, row_group_size=rows)
    return ColumnReader(str(path), pq.ParquetFile(path))


@given(lists=LISTS, rows=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_lists(lists: list[list[int] | None], rows: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "lists.parquet"
    lengths, values = reader_of(path, pa.array(lists, pa.list_(pa.int64())), rows).lists("x", pa.int64())
    flat = [value for one in lists for value in one or []]
    assert lengths.tolist() == [len(one or []) for one in lists]
    assert values.tolist() == flat
    assert values.dtype.itemsize == max([np.min_scalar_type(-1 - max(v, -1 - v)).itemsize for v in flat], default=1)
    assert not values.flags.writeable


@given(numbers=st.lists(st.none() | st.integers(-(1 << 60), 1 << 60), max_size=9), rows=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_numbers(numbers: list[int | None], rows: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "numbers.parquet"
    got = reader_of(path, pa.array(numbers, pa.int64()), rows).numbers("x", pa.int64(), np.int64)
    assert got.tolist() == [number or 0 for number in numbers]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_checksums_and_words(rows: int, tmp_path: Path) -> None:
    digests = [bytes([n] * DIGEST_BYTES) if n % 3 else None for n in range(5)]
    got = reader_of(tmp_path / "x", pa.array(digests, DIGEST), rows).digests("x", DIGEST)
    assert [row.tobytes() for row in got] == [digest or bytes(DIGEST_BYTES) for digest in digests]
    kind = pa.dictionary(pa.int32(), pa.string())
    words = ["b", "a", None, "b", "c"]
    names, codes = reader_of(tmp_path / "y", pa.array(words, kind), rows).codes("x", kind)
    assert [names[code] if code >= 0 else None for code in codes] == words


def test_checksums_are_read_when_they_are_asked_for(split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    read = ColumnReader.digests

    def counting(reader: ColumnReader, name: str, kind: pa.DataType) -> np.ndarray:
        asked.append(name)
        return read(reader, name, kind)

    monkeypatch.setattr(ColumnReader, "digests", counting)
    manifest = Manifest.load(split)
    component = manifest.component("mp4")
    assert component.offset.all()
    assert asked == []
    assert component.digest is component.digest
    assert component.digest.any(axis=1).all()
    assert asked == ["mp4.xxh3_128"]
    (split / "manifest-000000.parquet").write_bytes(b"damaged")
    with pytest.raises(ShardError, match="has 7 bytes, but"):
        _ = manifest.component("json").digest
