"""azurite, a server of Azure's blob storage (npm: azurite)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from ..ports import free_ports
from .server import listens, program, running

CONTAINER = "container"
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account and the key that Microsoft publishes for azurite."""
_VERSION = "2021-08-06"


@dataclass(frozen=True, slots=True)
class AzureServer:
    """A server of the published account, with the container `CONTAINER`."""

    port: int

    @property
    def env(self) -> dict[str, str]:
        """What a process has in its environment that is to use this server."""
        return azure_environment(f"http://127.0.0.1:{self.port}")


def azure_environment(endpoint: str) -> dict[str, str]:
    """The environment in which `az://` leads to `endpoint`: a server of the tests, or a proxy before it."""
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
        "AZURE_STORAGE_USE_EMULATOR": "true",
        "AZURITE_BLOB_STORAGE_URL": endpoint,
        "AZURE_ALLOW_HTTP": "true",
    }


@contextmanager
def azurite(folder: Path) -> Iterator[AzureServer]:
    """A server with its data in `folder`."""
    blob = program("azurite-blob")
    [port] = free_ports(1)
    words = ["--blobPort", str(port), "--location", str(folder), "--silent", "--skipApiVersionCheck"]
    words.append("--disableTelemetry")
    with running([blob, *words], folder, ready=lambda: listens(port)):
        _make_container(port)
        yield AzureServer(port)


def _make_container(port: int) -> None:
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": _VERSION}
    words = ["PUT", *[""] * 11, *(f"{name}:{value}" for name, value in sorted(headers.items()))]
    words += [f"/{_ACCOUNT}/{_ACCOUNT}/{CONTAINER}", "restype:container"]
    signature = hmac.digest(base64.b64decode(_KEY), "\n".join(words).encode(), hashlib.sha256)
    headers["Authorization"] = f"SharedKey {_ACCOUNT}:{base64.b64encode(signature).decode()}"
    url = f"http://127.0.0.1:{port}/{_ACCOUNT}/{CONTAINER}?restype=container"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)).close()
