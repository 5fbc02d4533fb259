"""nginx, a web server that serves ranges of files (Debian: nginx)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..ports import free_ports
from .server import listens, program, running

_CONFIG = """\
{user}
daemon off;
worker_processes 1;
error_log stderr;
pid {home}/pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    keepalive_requests 100000;
    server {{
        listen 127.0.0.1:{port};
        root {root};
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class WebServer:
    """A web server, and the folder whose files it serves."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def nginx(folder: Path) -> Iterator[WebServer]:
    """A server of the files in `folder / "files"`."""
    command = program("nginx")
    home, files = folder / "nginx", folder / "files"
    for one in (home, files):
        one.mkdir(parents=True, exist_ok=True)
    [port] = free_ports(1)
    user = "user root;" if os.geteuid() == 0 else ""  # temporary folders are closed to other users
    (home / "nginx.conf").write_text(_CONFIG.format(user=user, home=home, port=port, root=files))
    with running(
        [command, "-e", "stderr", "-p", str(home), "-c", str(home / "nginx.conf")], home, ready=lambda: listens(port)
    ):
        yield WebServer(port, files)
