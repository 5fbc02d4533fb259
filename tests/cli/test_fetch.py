"""`maskstream fetch` fills a cache, and `bench --cache` then reads without the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.shards.stores.block_cache import BlockCache

from ..pipelines.every_modality import write_split
from ..web_server import WebServer, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WebServer, str]]:
    folder = tmp_path_factory.mktemp("served")
    split = write_split("image", folder / "image")
    with serving(folder) as server:
        yield server, f"{server.url}/{split.relative_to(folder)}"


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_fetched_split_is_read_from_the_cache(served: tuple[WebServer, str], tmp_path: Path) -> None:
    server, url = served
    assert f"shards of {url}" in run("fetch", url, "--cache", tmp_path)
    server.requests.clear()
    measured = run("bench", url, "--cache", tmp_path, "--samples", 8, "--batch-size", 2, "--json", "--device", "cpu")
    assert json.loads(measured.strip().splitlines()[-1])["samples"] >= 8
    run("fetch", url, "--cache", tmp_path, "--lanes", 1, "--lane", 0)
    assert not [one.name for one in server.requests if one.name.endswith((".tar", ".sums"))]


def test_what_does_not_fit_and_what_is_local_is_refused(
    served: tuple[WebServer, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, url = served
    with monkeypatch.context() as small:
        small.setattr(BlockCache, "fits", lambda self, size_bytes: False)
        with pytest.raises(ValueError, match="more than fits in a cache of 1 GB; raise --cache-gb, or choose lanes"):
            run("fetch", url, "--cache", tmp_path, "--cache-gb", 1, "--lanes", 1)
    with pytest.raises(ValueError, match="is local; leave it out"):
        run("fetch", write_split("image", tmp_path / "local"), "--cache", tmp_path / "cache")
    with pytest.raises(ValueError, match="lane 3 of 2 lanes"):
        run("fetch", url, "--cache", tmp_path, "--lanes", 2, "--lane", 3)
