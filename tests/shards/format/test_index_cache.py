"""A manifest is unpacked once per machine, and all processes map the same file."""

from __future__ import annotations

import errno
import fcntl
import importlib
import json
import multiprocessing
import os
import pickle
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from maskstream.shards.errors import ShardError
from maskstream.shards.format import index_cache, manifest
from maskstream.shards.format.index_cache import IndexFile, IndexWriter, SpoolError, open_cached_index
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify

from ...damaged_files import flip

KEY = "0" * 32


@pytest.fixture
def in_a_process(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module with what the processes do, importable for them."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("seen_manifest")


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that manifests of any size use."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MASKSTREAM_CACHE", str(folder))
    monkeypatch.setattr(index_cache, "SMALL_BYTES", 0)
    return folder


def indexes(cache: Path) -> list[Path]:
    return sorted((cache / "indexes").glob("*.index"))


def unpack_numbers(new_file: Callable[[], BinaryIO], stream: BinaryIO) -> None:
    writer = IndexWriter(stream)
    writer.put("numbers", np.int64, [np.arange(1000)])
    writer.finish({"key": KEY})


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("cached", [True, False])
def test_a_new_process_maps_the_same_file(
    split: Path, cache: Path, in_a_process: Any, method: str, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = in_a_process.mapped()
    opened = Manifest.load(split, cached=cached)
    alone = in_a_process.seen(opened)
    alone["files"] = sorted(set(alone["files"]) - before)
    if cached:
        indexes(cache)[0].unlink()  # a process that is being started needs no name
    context = multiprocessing.get_context(method)
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=in_a_process.told, args=(opened, theirs))
    process.start()
    theirs.close()
    there = mine.recv()
    process.join()
    assert there == alone
    assert len(alone["files"]) == 1
    assert alone["writeable"] == [False, False]


def test_elsewhere_a_manifest_is_its_store_and_version(split: Path, in_a_process: Any) -> None:
    opened = Manifest.load(split)
    assert len(pickle.dumps(opened)) < 400
    there = in_a_process.seen(pickle.loads(pickle.dumps(opened)))
    here = in_a_process.seen(opened)
    assert {**there, "files": 0} == {**here, "files": 0}


def test_small_manifests_need_no_cache(split: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_cache, "SMALL_BYTES", 1 << 20)
    Manifest.load(split)
    assert not (cache / "indexes").exists()


def test_a_warm_open_reads_no_part(split: Path, cache: Path, in_a_process: Any) -> None:
    cold = in_a_process.seen(Manifest.load(split))
    (index,) = indexes(cache)
    (split / "manifest-000000.parquet").rename(split / "away")
    warm = Manifest.load(split)
    assert warm.keys(range(8)) == cold["keys"]
    assert stat.S_IMODE((cache / "indexes").stat().st_mode) == 0o700
    with pytest.raises(ShardError, match=r"no manifest-000000.parquet"):
        Manifest.load(split, cached=False)
    assert "no manifest-000000.parquet" in verify(split).problems[0]
    (split / "away").rename(split / "manifest-000000.parquet")
    assert verify(split).ok
    assert indexes(cache) == [index]


def test_another_manifest_has_another_index(
    make_split: Callable[..., object], split: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    Manifest.load(split)
    copy = tmp_path_factory.mktemp("copy")
    make_split(copy)
    assert Manifest.load(copy).keys([0]) == Manifest.load(split).keys([0])
    assert len(indexes(cache)) == 1, "a copy of the same manifest shares its index"
    info = json.loads((split / "dataset.json").read_text())
    assert manifest._index_key(info) + ".index" == indexes(cache)[0].name
    info["files"]["manifest-000000.parquet"]["xxh3_128"] = "1" * 32
    assert manifest._index_key(info) + ".index" != indexes(cache)[0].name


@pytest.mark.parametrize("damage", ["cut", "empty", "header", "end", "other key"])
def test_a_damaged_index_is_unpacked_anew(split: Path, cache: Path, damage: str) -> None:
    wanted = Manifest.load(split).keys(range(8))
    (index,) = indexes(cache)
    data = bytearray(index.read_bytes())
    size = int.from_bytes(data[-16:-8], "little")
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "empty":
        data = bytearray()
    elif damage == "header":
        data[-16 - size // 2] ^= 1
    elif damage == "end":
        data[-16:-8] = (1 << 62).to_bytes(8, "little")
    else:
        with index.open("wb") as stream:
            unpack_numbers(lambda: stream, stream)
        data = bytearray(index.read_bytes())
    index.unlink()
    index.write_bytes(data)
    assert Manifest.load(split).keys(range(8)) == wanted
    assert indexes(cache)[0].read_bytes() != data


def test_leftovers_of_killed_processes_go(cache: Path) -> None:
    folder = cache / "indexes"
    folder.mkdir()
    mine, others = folder / f".{KEY}.index.12345678.tmp", folder / f".{'1' * 32}.index.12345678.tmp"
    mine.write_bytes(b"x")
    others.write_bytes(b"x")
    open_cached_index(KEY, 1, unpack_numbers)
    assert (mine.exists(), others.exists()) == (False, True)


def unusable(kind: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the cache folder one that cannot be written to."""
    if kind == "a file is there":
        (cache / "indexes").write_bytes(b"")
        return

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC if kind == "full" else errno.EROFS, os.strerror(errno.ENOSPC))

    if kind == "full":
        monkeypatch.setattr(index_cache, "_temporary", full)
    else:
        monkeypatch.setattr(Path, "mkdir", full)


@pytest.mark.parametrize("kind", ["full", "read-only", "a file is there"])
def test_without_room_the_index_is_in_memory(
    split: Path, cache: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        unusable(kind, cache, patch)
        opened = Manifest.load(split)
    assert len(opened.keys(range(8))) == 8
    assert "set a different folder with MASKSTREAM_CACHE" in caplog.text
    assert not list(cache.glob("indexes/*.index"))
    assert not list(cache.glob("indexes/.*.tmp"))


def test_a_disk_that_is_full_at_the_end_leaves_nothing(
    split: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written = 0
    write = index_cache._write

    def limited(file: BinaryIO, array: np.ndarray) -> None:
        nonlocal written
        if ".index." in str(getattr(file, "name", "")):
            written += array.nbytes
            if written > 3000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, array)

    monkeypatch.setattr(index_cache, "_write", limited)
    assert len(Manifest.load(split).keys(range(8))) == 8
    assert written > 3000
    assert "No space left" in caplog.text or "cannot be written" in caplog.text
    assert not list(cache.glob("indexes/*.index"))


def test_damaged_parts_are_refused_and_leave_nothing(split: Path, cache: Path) -> None:
    part = split / "manifest-000000.parquet"
    flip(part)
    with pytest.raises(ShardError, match="its checksum"):
        Manifest.load(split)
    assert not indexes(cache)
    assert not list(cache.glob("indexes/.*.tmp"))


def test_a_damaged_index_is_unpacked_again(split: Path, cache: Path) -> None:
    opened = Manifest.load(split)
    keys, labels, (index,) = opened.keys(range(8)), opened.label.tobytes(), indexes(cache)
    right = index.read_bytes()
    first = right.index(labels)
    of_labels = range(first, first + len(labels))
    for place in {*of_labels, *range(0, len(right), 199)}:
        index.unlink()  # not in place: a manifest maps it
        index.write_bytes(right[:place] + bytes([right[place] ^ 4]) + right[place + 1 :])
        again = Manifest.load(split)
        assert (again.keys(range(8)), again.label.tobytes()) == (keys, labels)
        assert place not in of_labels or index.read_bytes() == right


def test_one_process_unpacks_and_the_others_wait(cache: Path) -> None:
    calls = []
    begun, go_on = threading.Event(), threading.Event()

    def slow(new_file: Callable[[], BinaryIO], stream: BinaryIO) -> None:
        calls.append(1)
        begun.set()
        go_on.wait(30)
        unpack_numbers(new_file, stream)

    found: list[IndexFile] = []
    threads = [threading.Thread(target=lambda: found.append(open_cached_index(KEY, 1, slow))) for _ in range(3)]
    threads[0].start()
    assert begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    with open(cache / "indexes/.unpacking", "ab") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    go_on.set()
    for thread in threads:
        thread.join()
    assert calls == [1]
    assert [index.array("numbers").sum() for index in found] == [499500] * 3


def test_the_mapping_ends_with_the_last_array(cache: Path) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(f"{KEY}.index")

    numbers = open_cached_index(KEY, 1, unpack_numbers).array("numbers")
    assert mapped() == 1
    assert numbers.sum() == 499500
    del numbers
    assert mapped() == 0


@pytest.fixture
def descriptors() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_no_index_keeps_no_descriptor(tmp_path: Path, descriptors: None) -> None:
    (tmp_path / "x").write_bytes(b"no index at all, but long enough")
    with pytest.raises(ValueError, match="header is incomplete"):
        IndexFile.at(tmp_path / "x")


def test_a_spool_error_is_no_damage() -> None:
    assert not issubclass(SpoolError, ShardError)
