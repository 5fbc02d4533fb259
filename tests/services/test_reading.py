"""Splits are read from real servers as from the folder."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import obstore
import pytest
from obstore.store import from_url

from maskstream.shards.errors import OutageError, ShardError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify
from maskstream.shards.stores import client
from maskstream.shards.stores.open import open_store

from ..pipelines.every_modality import MODALITIES, write_split
from .nginx import WebServer

pytestmark = pytest.mark.services


def uploaded(folder: Path, url: str) -> str:
    """The URL of a copy of a folder in a store."""
    store = from_url(url, client_options={"allow_http": True})
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            obstore.put(store, path.relative_to(folder).as_posix(), path)
    return url


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split("video", tmp_path_factory.mktemp("video"))


def check(url: str, folder: Path) -> None:
    """A split at a URL is that of the folder: its bytes, its batches, its damage."""
    remote, local = Manifest.load(url), Manifest.load(folder)
    for i in range(len(local)):
        assert remote.store.read(*remote.member(i, "mp4")) == local.store.read(*local.member(i, "mp4"))
    kind = MODALITIES["video"]
    batches = []
    for location in (url, folder):
        with closing(kind.loader(location, seed=5, batch_size=5, device="cpu", workers=int(location is url))) as loader:
            batches.append([kind.rows(batch) for batch in loader])
    assert batches[0] == batches[1]
    assert verify(url) == verify(folder)


def check_listing(url: str, folder: Path) -> None:
    store = open_store(url)
    assert store.names() == open_store(folder).names()
    assert store.names("t-000001") == ["t-000001.idx", "t-000001.sums", "t-000001.tar"]
    assert open_store(url.rpartition("/")[0]).folders() == [url.rpartition("/")[2]]
    with pytest.raises(ShardError, match=r"contains the splits train; pass one of them, such as .*/train"):
        Manifest.load(url.rpartition("/")[0])


def test_s3(s3: str, split: Path) -> None:
    url = uploaded(split, f"{s3}/train")
    check(url, split)
    check_listing(url, split)


def test_azure(azure: str, split: Path) -> None:
    url = uploaded(split, f"{azure}/train")
    check(url, split)
    check_listing(url, split)


def test_a_web_server(web_server: WebServer, split: Path) -> None:
    shutil.copytree(split, web_server.folder / "video")
    check(f"{web_server.url}/video", split)


def test_a_tar_that_is_cut_or_gone_is_damage_of_its_samples(s3: str, split: Path, tmp_path: Path) -> None:
    folder = tmp_path / "split"
    shutil.copytree(split, folder)
    tar = folder / "t-000002.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    (folder / "t-000001.tar").unlink()
    url = uploaded(folder, f"{s3}/train")
    kind, found = MODALITIES["video"], []
    for location in (url, folder):
        with closing(kind.loader(location, seed=5, batch_size=5, device="cpu", max_bad_fraction=1.0)) as loader:
            found.append([kind.rows(batch) for batch in loader])
    assert found[0] == found[1]
    assert [one.replace(url, str(folder)) for one in verify(url).problems] == verify(folder).problems


def test_wrong_credentials_are_no_verdict(s3: str, split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = uploaded(split, f"{s3}/train")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(OutageError, match="may not be accessed with these credentials"):
        Manifest.load(url)


def test_a_server_that_is_away(s3: str, split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_RETRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(OutageError, match=r"dataset\.json cannot be reached"):
        Manifest.load(f"{s3}/train")


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_a_place_that_does_not_exist_is_named(kind: str, request: pytest.FixtureRequest) -> None:
    scheme = request.getfixturevalue(kind).partition("://")[0]
    with pytest.raises(
        OutageError, match=r"the bucket 'nobucket' of .* does not exist; create it, or choose a different one$"
    ):
        Manifest.load(f"{scheme}://nobucket/train")
