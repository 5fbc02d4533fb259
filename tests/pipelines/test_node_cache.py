"""Loaders over a node's cache: the same batches, each byte fetched once, and damage of the cache is mended."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskstream.pipelines.modalities.split import filled, list_shards, select_lanes_of_node
from maskstream.shards.errors import StoreError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores.block_cache import BlockCache, CacheFilling, fill
from maskstream.shards.stores.open import open_store

from ..web_server import WebServer, serving
from .every_modality import MODALITIES, Modality, write_split

WAIT_S = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with serving(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture(scope="module", params=["video", "points"])
def kind(request: pytest.FixtureRequest, server: WebServer) -> tuple[Modality, str, Path]:
    """A modality, the URL of its split and the folder."""
    folder = write_split(request.param, server.folder / request.param)
    return MODALITIES[request.param], f"{server.url}/{folder.relative_to(server.folder)}", folder


@pytest.fixture
def by_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """No split fits a cache, so whole shards are not fetched."""
    monkeypatch.setattr(BlockCache, "fits", lambda self, size_bytes: False)


def rows(modality: Modality, location: str | Path, **options: Any) -> list[Any]:
    settings = {"seed": 5, "threads": 2, "device": "cpu", "batch_size": 6} | options
    with closing(modality.loader(location, **settings)) as loader:
        return [modality.rows(batch) for batch in loader]


def asked(server: WebServer) -> list[str]:
    """The tars and sums that were asked for."""
    return [one.name for one in server.requests if Path(one.name).suffix in (".tar", ".sums")]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_epoch_is_fetched_once(
    kind: tuple[Modality, str, Path], server: WebServer, tmp_path: Path, by_ranges: None, workers: int
) -> None:
    modality, url, folder = kind
    wanted = rows(modality, folder)
    assert rows(modality, url, cache=tmp_path / "cache", workers=workers) == wanted
    server.requests.clear()
    assert rows(modality, url, cache=tmp_path / "cache") == wanted
    assert rows(modality, url, cache=str(tmp_path / "cache"), workers=workers) == wanted
    assert asked(server) == []


def test_a_damaged_cache_is_mended(
    kind: tuple[Modality, str, Path], server: WebServer, tmp_path: Path, by_ranges: None
) -> None:
    modality, url, folder = kind
    wanted, rng = rows(modality, folder), np.random.default_rng(0)
    assert rows(modality, url, cache=tmp_path) == wanted
    for damage in ("flips", "holes", "sums"):
        for file in tmp_path.iterdir():
            data = bytearray(file.read_bytes())
            if damage == "holes" or (damage == "sums") == (file.suffix == ".blocks"):
                at = len(data) // 3 if damage == "holes" else 0
                data[at:] = bytes(len(data) - at)
            else:
                for at in rng.integers(0, len(data), 20).tolist():
                    data[at] ^= 1 << at % 8
            file.write_bytes(data)
        server.requests.clear()
        assert rows(modality, url, cache=tmp_path) == wanted
        assert asked(server)
    server.requests.clear()
    assert rows(modality, url, cache=tmp_path) == wanted
    assert asked(server) == []


def test_shards_that_fit_are_fetched_whole_behind_the_loader(
    kind: tuple[Modality, str, Path], server: WebServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, url, _ = kind
    cache = BlockCache(tmp_path, 1 << 28)
    manifest = Manifest.open(open_store(url, cache))
    with caplog.at_level(logging.INFO):
        filling = filled(manifest, cache, lanes=1, rank=0, world_size=1)
    assert filling is not None
    assert filling.done.wait(WAIT_S)
    assert "so whole shards are fetched" in caplog.text
    server.requests.clear()
    again = Manifest.open(open_store(url, BlockCache(tmp_path, 1 << 28)))
    for name in manifest.shard_names:
        assert len(again.store.read(name, 0, again.store.size(name))) == manifest.store.size(name)
    assert asked(server) == []


def test_shards_that_do_not_fit_are_not(
    kind: tuple[Modality, str, Path], tmp_path: Path, by_ranges: None, caplog: pytest.LogCaptureFixture
) -> None:
    cache = BlockCache(tmp_path, 1 << 28)
    manifest = Manifest.open(open_store(kind[1], cache))
    with caplog.at_level(logging.INFO):
        assert filled(manifest, cache, lanes=1, rank=0, world_size=1) is None
    assert "so only the bytes that are read are cached" in caplog.text


def test_one_process_of_a_node_fills(
    kind: tuple[Modality, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = BlockCache(tmp_path, 1 << 28)
    manifest = Manifest.open(open_store(kind[1], cache))
    monkeypatch.setenv("LOCAL_RANK", "1")
    with caplog.at_level(logging.INFO):
        assert filled(manifest, cache, lanes=1, rank=1, world_size=2) is None
    assert not caplog.text


def test_filling_at_once_tells_all_bytes(kind: tuple[Modality, str, Path], tmp_path: Path) -> None:
    manifest, told = Manifest.open(open_store(kind[1], BlockCache(tmp_path, 1 << 28))), list[int]()
    fill(manifest.store, manifest.shard_names, told.append)
    assert sum(told) == sum(map(manifest.store.size, manifest.shard_names))


def test_an_error_ends_the_filling_with_a_warning(
    kind: tuple[Modality, str, Path], server: WebServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = Manifest.open(open_store(kind[1], BlockCache(tmp_path, 1 << 28)))
    server.answer = lambda request, body: 404 if request.name.endswith(".tar") else body
    try:
        filling = CacheFilling(manifest.store, manifest.shard_names)
        assert filling.done.wait(WAIT_S)
        with pytest.raises(StoreError, match="does not exist"):
            fill(manifest.store, manifest.shard_names, print)
    finally:
        server.answer = lambda request, body: body
    assert "the cache is no longer being filled: " in caplog.text
    assert "does not exist" in caplog.text


@pytest.mark.parametrize(
    ("lanes", "rank", "world_size", "on_node", "own"),
    [
        (1, 0, 1, 1, range(1)),
        (4, 5, 8, 2, range(2, 3)),
        (4, 5, 8, 4, range(2, 4)),
        (3, 1, 2, 1, range(1, 3)),
        (8, 0, 1, 8, range(8)),
    ],
)
def test_the_lanes_of_a_node(
    lanes: int, rank: int, world_size: int, on_node: int, own: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(on_node))
    assert select_lanes_of_node(lanes, rank, world_size) == own


def test_the_shards_of_all_lanes_are_all_shards(kind: tuple[Modality, str, Path]) -> None:
    manifest = Manifest.load(kind[2])
    lanes = len(manifest.shard_names)
    each = [list_shards(manifest, lanes, [lane]) for lane in range(lanes)]
    assert sorted(name for names in each for name in names) == manifest.shard_names
    assert list_shards(manifest, 1, range(1)) == manifest.shard_names


def test_a_cache_of_a_local_folder_is_refused(kind: tuple[Modality, str, Path], tmp_path: Path) -> None:
    modality, url, folder = kind
    with pytest.raises(ValueError, match=r"is only for data at URLs, but .* is local; leave it out"):
        rows(modality, folder, cache=tmp_path)
    with pytest.raises(ValueError, match=r"cache_gb must be a number of at least 0.001, got 0.0001"):
        rows(modality, url, cache=tmp_path, cache_gb=0.0001)
