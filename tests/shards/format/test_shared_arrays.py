"""A manifest goes to a new process as memory that both have, and to any other place as its folder."""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.shared_arrays import Shared, can_share
from maskstream.shards.format.writer import write_shard

DESCRIPTORS = Path("/proc/self/fd")

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files without a name")


@dataclass(frozen=True)
class Pair:
    numbers: np.ndarray
    words: pa.StringArray


@pytest.fixture
def in_a_process(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module with what the processes do, importable for them."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("seen_manifest")


@pytest.fixture
def manifest(samples: list[Sample], tmp_path: Path) -> Manifest:
    record = write_shard(tmp_path / "toy-000000.tar", samples)
    info = DatasetInfo(dataset="toy", split="train", modality="video", profile="train")
    finish_split(tmp_path, info, [record], [])
    return Manifest.load(tmp_path)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_new_process_has_the_same_manifest_in_the_same_memory(
    manifest: Manifest, in_a_process: Any, method: str
) -> None:
    alone = in_a_process.seen(manifest)
    assert not alone["shared"]
    context = multiprocessing.get_context(method)
    for _ in range(2):
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=in_a_process.told, args=(manifest, theirs))
        process.start()
        theirs.close()
        there = mine.recv()
        process.join()
        assert there == {**alone, "shared": True} == in_a_process.seen(manifest)


def test_elsewhere_a_manifest_is_its_folder(manifest: Manifest, in_a_process: Any) -> None:
    assert not can_share()
    assert len(pickle.dumps(manifest)) < 400
    assert in_a_process.seen(pickle.loads(pickle.dumps(manifest))) == in_a_process.seen(manifest)


def test_arrays_of_any_kind_come_back_and_are_read_only() -> None:
    words = pa.array(["none", "a", "", "längere Wörter"])
    tree = {
        "pair": Pair(np.arange(5, dtype=np.int8), words.slice(1)),
        "table": np.arange(6.0).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "empty": np.empty((0, 4), np.int16),
        "no_words": pa.array([], pa.string()),
        "name": "as it is",
        "nothing": None,
    }
    back = Shared(tree).tree()
    gc.collect()
    assert back["pair"].words.equals(words.slice(1))
    assert back["no_words"].equals(tree["no_words"])
    for got, wanted in (
        (back["pair"].numbers, tree["pair"].numbers),
        *((back[n], tree[n]) for n in ("table", "columns", "empty")),
    ):
        np.testing.assert_array_equal(got, wanted, strict=True)
        assert not got.flags.writeable
    assert (back["name"], back["nothing"]) == ("as it is", None)


def test_the_memory_goes_with_the_last_that_has_it() -> None:
    def open_files() -> list[str]:
        return [name for name in map(os.readlink, DESCRIPTORS.iterdir()) if "memfd:maskstream" in name]

    def readable() -> int:
        return Path("/proc/self/maps").read_text().count("memfd:maskstream")

    before = readable()
    shared = Shared({"numbers": np.arange(10)})
    numbers = shared.tree()["numbers"]
    assert readable() == before + 1
    del shared
    assert numbers.tolist() == list(range(10))
    del numbers
    gc.collect()
    assert readable() == before
