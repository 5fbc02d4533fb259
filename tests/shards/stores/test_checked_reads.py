"""Ranges that are read and checked by compiled code, beside the library's sums and the store's own reads."""

import os

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from maskstream.shards.errors import StoreError
from maskstream.shards.stores import local
from maskstream.shards.stores.base import Range
from maskstream.shards.stores.block_sums import BLOCK_BYTES, SUM_BYTES, sum_blocks
from maskstream.shards.stores.checked_reads import BLOCK, SUM, sum_of
from maskstream.shards.stores.local import LocalStore

from ...damaged_files import flip

NAMES = ("a.tar", "b.tar")
SIZES = (5 * BLOCK_BYTES + 1000, 3 * BLOCK_BYTES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tars")
    for seed, (name, size) in enumerate(zip(NAMES, SIZES, strict=True)):
        write(folder / name, np.random.default_rng(seed).bytes(size))
    return folder


def write(path, data):
    path.write_bytes(data)
    path.with_suffix(".sums").write_bytes(sum_blocks(memoryview(data)))


def joined(store, ranges):
    """What `read_joined` makes of rows of ranges, each (number of the file, offset, size, ...)."""
    rows = np.array(ranges, np.int64)
    found = store.read_joined(NAMES, rows[:, 0], rows[:, 1:])
    return None if found is None else found.tobytes()


@given(st.integers(241, BLOCK), st.integers(0, 2**32))
def test_sums_are_those_of_the_library(n, seed):
    data = np.frombuffer(np.random.default_rng(seed).bytes(n), np.uint8)
    assert int(sum_of(data)) == xxhash.xxh3_64_intdigest(data.tobytes())
    assert (BLOCK, SUM) == (BLOCK_BYTES, SUM_BYTES)


@given(st.data())
@pytest.mark.parametrize("kept", [1 << 17, 0])
def test_ranges_are_those_of_the_store(folder, kept, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "_KEPT_SUMS", kept)
        store, wide, rows = LocalStore(folder), data.draw(st.integers(1, 3)), []
        for _ in range(data.draw(st.integers(1, 8))):
            file = data.draw(st.integers(0, 1))
            edges = data.draw(st.lists(st.integers(0, SIZES[file] - 1), min_size=wide, max_size=wide))
            sizes = [data.draw(st.integers(1, SIZES[file] - edge)) for edge in edges]
            rows.append([file, *(n for pair in zip(edges, sizes, strict=True) for n in pair)])
        ranges = [Range(NAMES[row[0]], *row[at : at + 2]) for row in rows for at in range(1, 2 * wide, 2)]
        assert joined(store, rows) == b"".join(store.read_many(ranges))


def test_ranges_one_behind_the_other_of_a_long_file(tmp_path):
    data = np.random.default_rng(0).bytes(40 * BLOCK_BYTES)
    write(tmp_path / "a.tar", data)
    rows = [(0, at, 3000, at + 3100, 5000) for at in range(0, 39 * BLOCK_BYTES - 5000, 9000)]
    wanted = b"".join(data[at : at + 3000] + data[at + 3100 : at + 8100] for _, at, *_ in rows)
    assert joined(LocalStore(tmp_path), rows) == wanted


@pytest.mark.parametrize(
    "row", [(0, -1, 5), (0, 5, -1), (0, 5, 0), (0, SIZES[0] - 4, 5), (0, 2**62, 2**62), (1, 1, SIZES[1])]
)
def test_ranges_outside_of_a_file_are_not_read(folder, row):
    assert joined(LocalStore(folder), [(0, 0, 5), row]) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flip(path, BLOCK_BYTES + 17, 4),
        lambda path: flip(path.with_suffix(".sums"), SUM_BYTES + 3, 64),
        lambda path: os.truncate(path, BLOCK_BYTES + 300),
        lambda path: os.truncate(path.with_suffix(".sums"), SUM_BYTES),
        lambda path: path.unlink(),
    ],
)
@pytest.mark.parametrize("kept", [1 << 17, 0])
@pytest.mark.parametrize("opened", [False, True])
def test_what_is_not_in_order_is_left_to_the_store(tmp_path, monkeypatch, damage, kept, opened):
    """The store tells of it, unless what was open before is still whole."""
    monkeypatch.setattr(local, "_KEPT_SUMS", kept)
    data = np.random.default_rng(0).bytes(3 * BLOCK_BYTES)
    write(tmp_path / "a.tar", data)
    store, one = LocalStore(tmp_path), (0, BLOCK_BYTES, 500)
    if opened:
        assert joined(store, [one]) == data[BLOCK_BYTES : BLOCK_BYTES + 500]
    damage(tmp_path / "a.tar")
    found = joined(store, [one])
    try:
        wanted = store.read("a.tar", *one[1:])
    except StoreError:
        wanted = None
    assert found == wanted
    assert (found is None) or opened


def test_files_without_sums_and_short_last_blocks_are_left_to_the_store(tmp_path, caplog):
    data = np.random.default_rng(0).bytes(BLOCK_BYTES + 240)
    write(tmp_path / "a.tar", data)
    (tmp_path / "b.tar").write_bytes(data)
    store = LocalStore(tmp_path)
    assert joined(store, [(0, 10, 20)]) == data[10:30]
    assert joined(store, [(0, BLOCK_BYTES, 20)]) is None
    assert joined(store, [(0, 10, 20), (1, 10, 20)]) is None
    assert "b.sums" in caplog.text
