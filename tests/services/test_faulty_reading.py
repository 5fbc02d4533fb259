"""Splits are read through a proxy that injects faults into a fifth of the requests: batches are those of the folder.

A fault is no verdict on a sample, so no sample is replaced.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from maskstream.shards.format.verify import verify
from maskstream.shards.stores import client

from ..pipelines.every_modality import MODALITIES, write_split
from .azurite import AzureServer
from .faults import KINDS, Faults
from .nginx import WebServer
from .proxies import RunningProxy, proxied
from .seaweedfs import S3Server
from .test_reading import uploaded

pytestmark = pytest.mark.services

SEEDS = (0, 1, 2)
VIDEO = MODALITIES["video"]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stalls are noticed soon."""
    monkeypatch.setattr(client, "READ_S", 1.0)
    monkeypatch.setattr(client, "LEAST_PAUSE_S", 0.01)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split("video", tmp_path_factory.mktemp("video"))


@pytest.fixture(scope="module")
def truth(split: Path) -> list[object]:
    return batches(split)


def batches(location: str | Path) -> list[object]:
    with closing(VIDEO.loader(location, seed=5, batch_size=5, device="cpu")) as loader:
        return [VIDEO.rows(batch) for _ in range(2) for batch in loader]


def check(url: str, proxy: RunningProxy, split: Path, truth: list[object]) -> None:
    """What is read is right, although there were faults."""
    assert batches(url) == truth
    assert verify(url) == verify(split)
    counts = proxy.counts()
    print(f"{url}: {counts}")
    assert counts.faults


def faults(seed: int) -> Faults:
    return Faults(seed=seed, share=0.2, kinds=KINDS, stall_s=3)


@pytest.mark.parametrize("seed", SEEDS)
def test_s3(
    seed: int,
    s3_server: S3Server,
    s3: str,
    split: Path,
    truth: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = uploaded(split, f"{s3}/train")
    with proxied(s3_server.port, faults(seed), tmp_path) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        check(url, proxy, split, truth)


@pytest.mark.parametrize("seed", SEEDS)
def test_azure(
    seed: int,
    azure_server: AzureServer,
    azure: str,
    split: Path,
    truth: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = uploaded(split, f"{azure}/train")
    with proxied(azure_server.port, faults(seed), tmp_path) as proxy:
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", proxy.url)
        check(url, proxy, split, truth)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_web_server(seed: int, web_server: WebServer, split: Path, truth: list[object], tmp_path: Path) -> None:
    shutil.copytree(split, web_server.folder / f"faulty-{seed}")
    with proxied(web_server.port, faults(seed), tmp_path) as proxy:
        check(f"{proxy.url}/faulty-{seed}", proxy, split, truth)
