"""A small S3 server in this process: what a split is written and read with, from memory, for tests without services."""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

BUCKET = "bucket"
_PAGE = 100
"""Names in one page of a listing; few, so that listings have pages."""
_TIME = "2026-01-01T00:00:00.000Z"
_HTTP_TIME = "Thu, 01 Jan 2026 00:00:00 GMT"


@dataclass
class S3Double:
    """What the server holds, and how it takes `If-None-Match`: as S3 does, with an error, or not at all."""

    port: int = 0
    conditional: Literal["kept", "refused", "ignored"] = "kept"
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def env(self) -> dict[str, str]:
        """The environment in which `s3://bucket` leads here."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }


@contextmanager
def s3_double() -> Iterator[S3Double]:
    """A server for the block."""
    double = S3Double()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"double": double}))
    server.daemon_threads = True
    double.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    double: S3Double
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    key: str
    query: dict[str, str]

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _parse(self) -> bytes:
        parts = urlsplit(self.path)
        self.key = unquote(parts.path).removeprefix(f"/{BUCKET}").lstrip("/")
        self.query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self.double.requests.append(f"{self.command} {self.key}")
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _fail(self, status: HTTPStatus, code: str) -> None:
        self._send(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def do_PUT(self) -> None:
        body = self._parse()
        with self.double.lock:
            if "uploadId" in self.query:
                self.double.uploads[self.query["uploadId"]][int(self.query["partNumber"])] = body
            elif self.headers.get("If-None-Match") and self.double.conditional == "refused":
                return self._fail(HTTPStatus.NOT_IMPLEMENTED, "NotImplemented")
            elif self._is_kept():
                return self._fail(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")
            else:
                self.double.objects[self.key] = body
        self._send(200, ETag=_tag(body))

    def _is_kept(self) -> bool:
        wanted = self.headers.get("If-None-Match") == "*" and self.double.conditional == "kept"
        return wanted and self.key in self.double.objects

    def do_POST(self) -> None:
        body = self._parse()
        with self.double.lock:
            if "delete" in self.query:
                keys = [node.text or "" for node in ElementTree.fromstring(body).iter() if node.tag.endswith("Key")]
                for key in keys:
                    self.double.objects.pop(key, None)
                said = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
                return self._send(200, f"<DeleteResult>{said}</DeleteResult>".encode())
            if "uploads" in self.query:
                number = str(next(self.double.numbers))
                self.double.uploads[number] = {}
                said = f"<Bucket>{BUCKET}</Bucket><Key>{escape(self.key)}</Key><UploadId>{number}</UploadId>"
                said = f"<InitiateMultipartUploadResult>{said}</InitiateMultipartUploadResult>"
                return self._send(200, said.encode())
            parts = self.double.uploads.pop(self.query["uploadId"])
            self.double.objects[self.key] = b"".join(data for _, data in sorted(parts.items()))
            said = f"<Key>{escape(self.key)}</Key><ETag>{_tag(self.double.objects[self.key])}</ETag>"
        self._send(200, f"<CompleteMultipartUploadResult>{said}</CompleteMultipartUploadResult>".encode())

    def do_DELETE(self) -> None:
        self._parse()
        with self.double.lock:
            if "uploadId" in self.query:
                self.double.uploads.pop(self.query["uploadId"], None)
            else:
                self.double.objects.pop(self.key, None)
        self._send(204)

    def do_GET(self) -> None:
        self._parse()
        if not self.key:
            return self._list()
        with self.double.lock:
            data = self.double.objects.get(self.key)
        if data is None:
            return self._fail(HTTPStatus.NOT_FOUND, "NoSuchKey")
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not found:
            return self._send(200, data, ETag=_tag(data), Last_Modified=_HTTP_TIME, Content_Length=str(len(data)))
        begin, end = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
        if begin > end:
            return self._fail(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "InvalidRange")
        where = f"bytes {begin}-{end}/{len(data)}"
        self._send(206, data[begin : end + 1], ETag=_tag(data), Last_Modified=_HTTP_TIME, Content_Range=where)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _list(self) -> None:
        prefix, after = self.query.get("prefix", ""), self.query.get("continuation-token", "")
        with self.double.lock:
            found = sorted((key, len(data)) for key, data in self.double.objects.items() if key.startswith(prefix))
        folders = set()
        if self.query.get("delimiter"):
            folders = {prefix + key[len(prefix) :].split("/")[0] + "/" for key, _ in found if "/" in key[len(prefix) :]}
            found = [(key, size) for key, size in found if "/" not in key[len(prefix) :]]
        left = [each for each in found if each[0] > after]
        page = left[:_PAGE]
        rows = [
            f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><LastModified>{_TIME}</LastModified>"
            f"<ETag>{_tag(key.encode())}</ETag></Contents>"
            for key, size in page
        ]
        rows += [f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(folders)]
        more = len(left) > len(page)
        token = f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if more else ""
        head = f"<Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
        head += f"<MaxKeys>{_PAGE}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>{token}"
        self._send(200, f"<ListBucketResult>{head}{''.join(rows)}</ListBucketResult>".encode())


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'
