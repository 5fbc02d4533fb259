"""Raw data in an object store and on a web server become the shards that they become on a disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskstream.shards.stores import client

from ..preprocess.conftest import make_video
from ..preprocess.job.test_job import contents, run
from ..preprocess.raw.test_files import LIMITS, list_files, raw
from .faults import Faults
from .nginx import WebServer
from .proxies import proxied
from .seaweedfs import S3Server, environment
from .test_reading import uploaded

__all__ = ["make_video", "raw"]  # fixtures

pytestmark = pytest.mark.services


@pytest.fixture
def whole(raw: Path, tmp_path: Path) -> dict[str, str]:
    """What the folder becomes."""
    run(raw, tmp_path / "local", limits=LIMITS)
    return contents(tmp_path / "local")


@pytest.mark.parametrize("place", ["s3", "azure"])
def test_in_an_object_store(
    raw: Path, whole: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest, place: str
):
    url = uploaded(raw, request.getfixturevalue(place))
    run(url, tmp_path / "remote", limits=LIMITS, workers=2)
    assert contents(tmp_path / "remote") == whole
    assert run(url, tmp_path / "remote", limits=LIMITS).n_sources == 0


@pytest.mark.parametrize("place", ["s3", "azure"])
def test_a_list_in_parquet_in_an_object_store(raw: Path, tmp_path: Path, request: pytest.FixtureRequest, place: str):
    rows = {"path": ["train/a/one.mp4", "train/b/two words.mp4"], "caption": ["x", "y"], "end": [0.1, None]}
    pq.write_table(pa.table(rows), raw / "list.parquet")
    run(raw, tmp_path / "local", limits=LIMITS)
    run(uploaded(raw, request.getfixturevalue(place)), tmp_path / "remote", limits=LIMITS)
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")


def test_on_a_web_server(raw: Path, whole: dict[str, str], tmp_path: Path, web_server: WebServer):
    shutil.copytree(raw, web_server.folder / "raw", copy_function=shutil.copy2)
    list_files(web_server.folder / "raw")
    run(f"{web_server.url}/raw", tmp_path / "remote", limits=LIMITS, workers=2)
    assert contents(tmp_path / "remote") == whole


def test_a_fifth_of_the_requests_fail(
    raw: Path, whole: dict[str, str], tmp_path: Path, s3: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
):
    """They are tried again, and the bytes are the same; no source becomes a reject."""
    uploaded(raw, s3)
    monkeypatch.setattr(client, "READ_S", 2.0)
    with proxied(s3_server.port, Faults(seed=4, share=0.3, stall_s=3.0), tmp_path) as proxy:
        for name, value in environment(proxy.url).items():
            monkeypatch.setenv(name, value)
        run(s3, tmp_path / "remote", limits=LIMITS, pauses_s=(0.1,) * 5)
        counts = proxy.counts()
    print(counts)
    assert sum(counts.faults.values()) >= 3
    assert contents(tmp_path / "remote") == whole
