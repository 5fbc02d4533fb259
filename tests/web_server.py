"""A web server with ranges in this process, which notes its requests and can be told to misbehave."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote


class Request(NamedTuple):
    """method, name of the file, first byte and end of the range; 0 and None without one."""

    method: str
    name: str
    begin: int
    end: int | None


Answer = Callable[[Request, bytes], bytes | int]
"""The body to send instead of the right one, or a status to send without a body; 0 closes the connection."""


@dataclass(eq=False)
class WebServer:
    """Serves the files below `folder` at `url`.

    answer: what is sent, given the request and the right body. headers: those that a client sent last. rate: how many
    bytes of a body are sent a second; 0 for all at once. chunked: bodies come in chunks, without Content-Length.
    """

    folder: Path
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answer: Answer = lambda request, body: body
    headers: dict[str, str] = field(default_factory=dict)
    rate: float = 0
    chunked: bool = False
    redirects: dict[str, str] = field(default_factory=dict)
    """The beginnings of paths, and what they lead to instead."""


@contextmanager
def serving(folder: Path) -> Iterator[WebServer]:
    """A server of a folder, until the block ends."""
    server = WebServer(folder)
    with _Quiet(("127.0.0.1", 0), _handler(server)) as running:
        server.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            running.shutdown()
            thread.join()


class _Quiet(ThreadingHTTPServer):
    """Says nothing of clients that hang up."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


def _handler(server: WebServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            server.headers = {name.lower(): value for name, value in self.headers.items()}
            for begin, to in server.redirects.items():
                if self.path.startswith(begin):
                    self._send(302, b"", Location=to + self.path.removeprefix(begin))
                    return
            name = unquote(self.path).lstrip("/")
            path = server.folder / name
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            begin, end = (int(wanted[1]), int(wanted[2]) + 1 if wanted[2] else None) if wanted else (0, None)
            request = Request(self.command, name, begin, end)
            server.requests.append(request)
            if not path.is_file():
                self._send(404, b"")
                return
            data = path.read_bytes()
            if wanted and begin >= len(data):
                self._send(416, b"", **{"Content-Range": f"bytes */{len(data)}"})
                return
            right = data[begin:end]
            body = server.answer(request, right)
            age = {"Last-Modified": formatdate(path.stat().st_mtime, usegmt=True)}
            if body == 0:
                self.close_connection = True
                self.connection.shutdown(2)
            elif isinstance(body, int):
                self._send(body, b"")
            elif wanted:
                self._send(206, body, **{"Content-Range": f"bytes {begin}-{begin + len(right) - 1}/{len(data)}", **age})
            else:
                self._send(200, body, **age)

        def do_HEAD(self) -> None:
            self.do_GET()

        def _send(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if server.chunked and body:
                self.send_header("Transfer-Encoding", "chunked")
                body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            else:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET" and not server.rate:
                self.wfile.write(body)
            elif self.command == "GET":
                self._trickle(body)

        def _trickle(self, body: bytes) -> None:
            step = max(1, int(server.rate / 50))
            try:
                for at in range(0, len(body), step):
                    self.wfile.write(body[at : at + step])
                    self.wfile.flush()
                    time.sleep(step / server.rate)
            except OSError:  # the client has left
                self.close_connection = True

        def log_message(self, *words: object) -> None:
            pass

    return Handler
