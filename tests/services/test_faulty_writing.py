"""Jobs write to stores through a proxy that injects faults into a fifth of the requests: to the bytes of a local job.

A store that stays away too long ends a run by an OutageError, and the same command continues.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maskstream.shards.errors import OutageError
from maskstream.shards.format.verify import verify
from maskstream.shards.stores import client, remote_output
from maskstream.shards.stores.output import open_output

from ..preprocess.job.remote_jobs import SPLIT, contents, pictures, run
from .azurite import AzureServer
from .faults import Faults
from .proxies import RunningProxy, proxied
from .seaweedfs import S3Server

pytestmark = pytest.mark.services

SEEDS = (0, 1, 2)
MOST_RUNS = 20


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stalls are noticed soon."""
    made = client._client
    monkeypatch.setattr(client, "_client", lambda *place: made(*place[:3], 1.0, *place[4:]))
    monkeypatch.setattr(client, "LEAST_PAUSE_S", 0.01)


def faults(seed: int) -> Faults:
    return Faults(seed=seed, share=0.2, stall_s=3)


def written(raw: Path, place: str, proxy: RunningProxy) -> int:
    """The number of runs that the job took."""
    for number in range(1, MOST_RUNS + 1):
        try:
            run(raw, place)
        except OutageError as error:
            print(f"run {number}: {error}")
        else:
            assert verify(f"{place}/{SPLIT}").ok
            print(f"{place}: {number} runs, {proxy.counts()}")
            assert proxy.counts().faults
            return number
    raise AssertionError(f"the job was not done after {MOST_RUNS} runs")


@pytest.mark.parametrize("seed", SEEDS)
def test_s3(seed: int, s3_server: S3Server, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = pictures(tmp_path / "raw")
    run(raw, tmp_path / "local")
    with proxied(s3_server.port, faults(seed), tmp_path / "proxy") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        runs = written(raw, s3, proxy)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    assert contents(s3) == contents(tmp_path / "local")
    assert runs == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_azure(
    seed: int, azure_server: AzureServer, azure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = pictures(tmp_path / "raw")
    run(raw, tmp_path / "local")
    with proxied(azure_server.port, faults(seed), tmp_path / "proxy") as proxy:
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", proxy.url)
        runs = written(raw, azure, proxy)
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", azure_server.env["AZURITE_BLOB_STORAGE_URL"])
    assert contents(azure) == contents(tmp_path / "local")
    assert runs == 1


def test_large_files_are_sent_in_parts(
    s3_server: S3Server, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_output, "ONE_PUT_BYTES", 5 << 20)
    monkeypatch.setattr(remote_output, "_PART_BYTES", 5 << 20)
    data = os.urandom(17 << 20)
    with proxied(s3_server.port, faults(5), tmp_path / "proxy") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        for number in range(8):
            with open_output(s3).writing(f"{number}.tar") as stream:
                stream.write(data)
        assert proxy.counts().faults
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    assert open_output(s3).names() == [f"{number}.tar" for number in range(8)]
    assert {open_output(s3).whole(f"{number}.tar", len(data)) for number in range(8)} == {data}
