"""A loader gives the same from a URL as from the folder, and an outage is not the samples' fault."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskstream.shards.errors import OutageError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.stores import client

from ..web_server import WebServer, serving
from .every_modality import MODALITIES, Modality, write_split


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with serving(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture(scope="module", params=list(MODALITIES))
def kind(request: pytest.FixtureRequest, server: WebServer) -> tuple[Modality, Path]:
    """A modality and the folder of its split, which the server serves by the folder's name."""
    folder = write_split(request.param, server.folder / request.param)
    return MODALITIES[request.param], folder


def opened(modality: Modality, location: str | Path, **options: Any) -> Any:
    settings = {"seed": 5, "threads": 2, "device": "cpu", "batch_size": 6} | options
    return modality.loader(location, **settings)


def rows(modality: Modality, location: str | Path, **options: Any) -> list[Any]:
    with closing(opened(modality, location, **options)) as loader:
        return [modality.rows(batch) for batch in loader]


def url_of(server: WebServer, folder: Path) -> str:
    return f"{server.url}/{folder.relative_to(server.folder)}"


def test_batches_are_those_of_the_folder(kind: tuple[Modality, Path], server: WebServer) -> None:
    modality, folder = kind
    server.requests.clear()
    assert rows(modality, url_of(server, folder)) == rows(modality, folder)
    kinds = {Path(one.name).suffix for one in server.requests}
    assert {".tar", ".sums"} <= kinds
    assert not [one for one in server.requests if one.method == "HEAD" and one.name.endswith(".tar")]


def test_damage_has_the_replacement_that_it_has_in_the_folder(
    kind: tuple[Modality, Path], server: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    modality, folder = kind
    broken = folder.parent / "broken"
    shutil.copytree(folder, broken)
    name, offset, size = Manifest.load(folder).member(3, modality.component)
    with open(broken / name, "r+b") as file:
        file.seek(offset)
        file.write(np.random.default_rng(0).bytes(size))
    options = {"max_bad_fraction": 1.0, "shuffle": False}
    found = rows(modality, url_of(server, broken), **options)
    assert found == rows(modality, broken, **options)
    assert found != rows(modality, folder, **options)
    assert "replaced sample" in caplog.text


def test_a_run_that_began_in_the_folder_goes_on_at_the_url(kind: tuple[Modality, Path], server: WebServer) -> None:
    modality, folder = kind
    with closing(opened(modality, folder)) as loader, closing(opened(modality, url_of(server, folder))) as other:
        batches = iter(loader)
        next(batches)
        other.load_state_dict(loader.state_dict())
        assert [modality.rows(batch) for batch in batches] == [modality.rows(batch) for batch in other]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_outage_ends_the_epoch_and_replaces_nothing(
    workers: int, server: WebServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "MAX_RETRIES", 1)
    modality = MODALITIES["points"]
    folder = write_split("points", server.folder / f"away{workers}")
    monkeypatch.setattr(server, "answer", lambda request, body: 403 if request.name.endswith(".tar") else body)
    loader = opened(modality, url_of(server, folder), workers=workers, max_bad_fraction=1.0)
    with pytest.raises(OutageError, match=r"t-00000\d\.tar may not be accessed"):
        next(iter(loader))
    loader.close()
    assert "replaced" not in caplog.text
    monkeypatch.setattr(server, "answer", lambda request, body: body)
    assert len(rows(modality, url_of(server, folder), workers=workers)) == 2
