"""Servers for tests that are marked `services`. A server starts with the first test that needs it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from .azurite import CONTAINER, AzureServer, azurite
from .nginx import WebServer, nginx
from .seaweedfs import BUCKET, S3Server, seaweedfs
from .slurm import Slurm, slurm

_numbers = itertools.count()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server for all tests."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in an S3 server, as `s3://bucket/prefix`; the environment leads there."""
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{next(_numbers)}"


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    """A server of Azure's blob storage for all tests."""
    with azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture
def azure(azure_server: AzureServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in a server of Azure's blob storage, as `az://container/prefix`; the environment leads there."""
    for name, value in azure_server.env.items():
        monkeypatch.setenv(name, value)
    return f"az://{CONTAINER}/{next(_numbers)}"


@pytest.fixture(scope="session")
def web_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A web server for all tests; what lies in `web_server.folder` is at `web_server.url`."""
    with nginx(tmp_path_factory.mktemp("nginx")) as server:
        yield server


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A Slurm cluster for all tests."""
    with slurm(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster
