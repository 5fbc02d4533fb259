"""The cache of a node: what is read is right whatever happened to its files, and is fetched only if it must be."""

from __future__ import annotations

import errno
import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from maskstream.shards.stores import block_cache
from maskstream.shards.stores.block_cache import BlockCache
from maskstream.shards.stores.block_sums import BLOCK_BYTES, SUM_BYTES, sum_blocks

SIZE = 40 * BLOCK_BYTES + 123


class Remote:
    """A remote file, and the spans that were fetched of it."""

    def __init__(self, seed: int = 0, size: int = SIZE) -> None:
        self.data = np.random.default_rng(seed).bytes(size)
        self.sums = sum_blocks(memoryview(self.data))
        self.fetched: list[tuple[int, int]] = []

    def fetch(self, begin: int, size: int) -> bytes:
        self.fetched.append((begin, size))
        return self.data[begin : begin + size]

    def read(self, cache: BlockCache, first: int, stop: int, name: str = "x.tar") -> None:
        """Reads the blocks [first, stop) through a cache, and compares them."""
        begin, end = first * BLOCK_BYTES, min(stop * BLOCK_BYTES, len(self.data))
        sums = self.sums[first * SUM_BYTES : stop * SUM_BYTES]
        assert cache.read(name, begin, end - begin, sums, self.fetch) == self.data[begin:end]

    @property
    def new(self) -> list[tuple[int, int]]:
        """The blocks (first, number) fetched since the last call."""
        spans, self.fetched = self.fetched, []
        return [(begin // BLOCK_BYTES, -(-size // BLOCK_BYTES)) for begin, size in spans]


def test_blocks_are_fetched_once_and_lie_where_they_lie_in_the_file(tmp_path: Path) -> None:
    remote, cache = Remote(), BlockCache(tmp_path / "made/cache", 1 << 20)
    remote.read(cache, 30, 33)
    remote.read(cache, 30, 33)
    assert remote.new == [(30, 3)]
    remote.read(cache, 38, 41)
    assert remote.new == [(38, 3)]
    remote.read(BlockCache(cache.folder, 1 << 20), 39, 41)
    remote.read(pickle.loads(pickle.dumps(cache)), 31, 33)
    assert remote.new == []
    remote.read(cache, 32, 40)
    assert remote.new == [(33, 5)]
    (file,) = cache.folder.iterdir()
    assert file.read_bytes()[30 * BLOCK_BYTES :] == remote.data[30 * BLOCK_BYTES :]
    assert cache.measure_used_bytes() == 11 * BLOCK_BYTES


@pytest.mark.parametrize(
    ("damage", "fetched"),
    [
        (lambda file, data: file.write_bytes(data[:-1] + b"x"), [(40, 1)]),
        (lambda file, data: file.write_bytes(b"x" + data[1:-1]), [(0, 41)]),
        (lambda file, data: file.write_bytes(data[: 7 * BLOCK_BYTES + 1]), [(7, 34)]),
        (lambda file, data: file.write_bytes(data + b"more"), []),
        (lambda file, data: file.write_bytes(b""), [(0, 41)]),
        (lambda file, data: file.unlink(), [(0, 41)]),
    ],
)
def test_only_what_is_damaged_is_fetched_and_mended(
    damage: Callable[[Path, bytes], None], fetched: list[tuple[int, int]], tmp_path: Path
) -> None:
    remote, cache = Remote(), BlockCache(tmp_path, 1 << 20)
    remote.read(cache, 0, 41)
    (file,) = tmp_path.iterdir()
    damage(file, remote.data)
    remote.fetched.clear()
    remote.read(cache, 0, 41)
    assert remote.new == fetched
    remote.read(cache, 0, 41)
    assert remote.new == []


def test_holes_and_data_are_told_apart(tmp_path: Path) -> None:
    remote, cache = Remote(), BlockCache(tmp_path, 1 << 20)
    remote.read(cache, 10, 20, name="x")
    remote.read(cache, 30, 41, name="x")
    for first, stop, some, every in ((0, 5, False, False), (5, 15, True, False), (10, 20, True, True)):
        place = first * BLOCK_BYTES, (stop - first) * BLOCK_BYTES
        assert (cache.has_any("x", *place), cache.has_all("x", *place)) == (some, every)
    assert cache.has_all("x", 39 * BLOCK_BYTES, SIZE - 39 * BLOCK_BYTES)
    assert not cache.has_all("x", 39 * BLOCK_BYTES, 3 * BLOCK_BYTES)
    assert not cache.has_any("x", 41 * BLOCK_BYTES, BLOCK_BYTES)
    for place in ((-5, 5), (1 << 70, 5), (0, 1 << 70)):
        assert not cache.has_all("x", *place)
    assert not cache.has_any("y", 0, BLOCK_BYTES)


def test_other_contents_of_the_same_location_never_mix(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 1 << 20)
    one, two = Remote(1), Remote(2)
    for _ in range(2):
        one.read(cache, 0, 41, name="s3://b/x.tar 11")
        two.read(cache, 0, 41, name="s3://b/x.tar 22")
    assert (one.new, two.new) == ([(0, 41)], [(0, 41)])
    two.read(cache, 0, 41, name="s3://b/x.tar 11")  # even under one name each gets its own bytes
    assert two.new == [(0, 41)]


def test_whole_files_are_kept_behind_a_checksum(tmp_path: Path) -> None:
    cache, fetched = BlockCache(tmp_path, 1 << 20), []

    def fetch() -> bytes:
        fetched.append(1)
        return b"sums" * 100

    for damage in (None, lambda data: data[:-1], lambda data: data[:30] + b"!" + data[31:], lambda data: b""):
        if damage is not None:
            (file,) = tmp_path.iterdir()
            file.write_bytes(damage(file.read_bytes()))
        assert cache.whole("x.sums", fetch) == cache.whole("x.sums", fetch) == b"sums" * 100
    assert len(fetched) == 4


def test_an_empty_whole_file_is_kept_too(tmp_path: Path) -> None:
    cache, answers = BlockCache(tmp_path, 1 << 20), iter([b""])
    assert [cache.whole("empty", lambda: next(answers)) for _ in range(3)] == [b"", b"", b""]


def test_the_files_that_were_not_used_for_longest_go_first(tmp_path: Path) -> None:
    (tmp_path / "mine.blocks").write_bytes(b"of somebody else")
    cache, remotes = BlockCache(tmp_path, 1 << 20), [Remote(n) for n in range(12)]
    for n, remote in enumerate(remotes):
        remote.read(cache, 0, 41, name=str(n))
        file = Path(cache._path(str(n), "blocks"))
        used = file.stat().st_mtime - 1000 + n if n != 3 else file.stat().st_mtime
        os.utime(file, (used, used))
        assert cache.measure_used_bytes() <= 1 << 20
    kept = [n for n in range(12) if Path(cache._path(str(n), "blocks")).exists()]
    assert kept == [3, 8, 9, 10, 11]
    assert (tmp_path / "mine.blocks").exists()


def test_use_is_noted(tmp_path: Path) -> None:
    remote, cache = Remote(), BlockCache(tmp_path, 1 << 20)
    remote.read(cache, 0, 1)
    (file,) = tmp_path.iterdir()
    os.utime(file, (1e9, 1e9))
    remote.read(cache, 0, 1)
    assert file.stat().st_mtime > 1.5e9


def test_a_full_disk_stops_the_caching_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    remote, cache, now = Remote(), BlockCache(tmp_path, 1 << 20), [1000.0]
    remote.read(cache, 0, 1)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(block_cache.time, "monotonic", lambda: now[0])
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(block_cache.os, "pwrite", full)
        for first in (1, 1, 2):
            remote.read(cache, first, first + 1)
            now[0] += block_cache.PAUSE_S
    assert [record.getMessage() for record in caplog.records] == [
        f"the cache {tmp_path} cannot be written ([Errno 28] No space left on device); blocks are not cached until "
        "it can be"
    ]
    remote.fetched.clear()
    for _ in range(2):
        remote.read(cache, 0, 4)
    assert remote.new == [(1, 3)]


def test_a_folder_that_cannot_be_made_only_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    remote, cache = Remote(), BlockCache(tmp_path / "file/cache", 1 << 20)
    remote.read(cache, 0, 2)
    assert cache.whole("x", lambda: b"right") == b"right"
    assert cache.measure_used_bytes() == 0
    assert caplog.text.count("cannot be written") == 1


def test_a_limit_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got a cache of 5 bytes; expected at least 1048576 bytes"):
        BlockCache(tmp_path, 5)
