"""A proxy that stands before an HTTP server, delays requests and injects faults; it counts requests and bytes.

python faults.py --port 8000 --server 127.0.0.1:8333 --seed 0 --share 0.2 --delay 0.03 0.08

Whether a request meets a fault is drawn from the seed and the request: its method, target and range, and how often it
was made before. GET /.counts says what happened so far. Needs only the standard library.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

KINDS = ("busy", "truncated", "stalled", "reset", "lost", "long", "short")
"""The faults.

busy: 503, and the server sees no request. truncated: half of the body, and the connection ends. stalled: half of the
body, and nothing more for a while; then the connection ends. reset: the server sees no request. lost: the server does
what is asked, but the client hears nothing of it. long and short: Content-Length is wrong. An answer without a body is
cut within its headers instead. flipped, which is not drawn by default: a bit of the body is wrong.
"""
MORE_KINDS = (*KINDS, "flipped")
_PIECE = 1 << 16
_BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 4\r\n\r\nbusy"
_COUNTS = "/.counts"


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """share: how many of the requests meet a fault. delay_s: from and to. stall_s: how long a stall lasts."""

    seed: int = 0
    share: float = 0.2
    kinds: tuple[str, ...] = KINDS
    delay_s: tuple[float, float] = (0.0, 0.0)
    stall_s: float = 30.0


@dataclass(slots=True)
class Counts:
    """What a proxy has seen."""

    requests: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    faults: dict[str, int] = field(default_factory=dict)

    def told(self) -> dict[str, object]:
        """The counts by their names."""
        return {name: getattr(self, name) for name in self.__slots__}

    def add(self, fault: str) -> None:
        """Count a fault."""
        self.faults[fault] = self.faults.get(fault, 0) + 1


@dataclass(frozen=True, slots=True)
class Head:
    """The first line and the headers of a request or an answer."""

    line: str
    headers: dict[str, str]

    @property
    def length(self) -> int | None:
        """The length of the body in bytes; None if it is sent in chunks or until the connection ends."""
        value = self.headers.get("content-length")
        return None if value is None else int(value)

    @property
    def is_chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    def sent(self, length: int | None = None) -> bytes:
        """The bytes to send, with another Content-Length if one is given."""
        headers = self.headers if length is None else {**self.headers, "content-length": str(length)}
        return "\r\n".join([self.line, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode(
            "latin-1"
        )


class Proxy:
    """Passes requests on to a server."""

    def __init__(self, host: str, port: int, faults: Faults) -> None:
        self.counts = Counts()
        self._server, self._faults = (host, port), faults
        self._seen: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the requests of a connection, until one meets a fault that ends it."""
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                request = await _head(reader)
                if request.line.split(" ")[1] == _COUNTS:
                    body = json.dumps(self.counts.told()).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                    continue
                upstream = upstream or await asyncio.open_connection(*self._server)
                await self._request(request, reader, writer, *upstream)
        except (EOFError, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for one in (writer, *([upstream[1]] if upstream else [])):
                with suppress(OSError):
                    one.close()

    async def _request(
        self,
        request: Head,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        self.counts.requests += 1
        rng = self._drawn(request)
        kind = rng.choice(self._faults.kinds) if rng.random() < self._faults.share else None
        low, high = self._faults.delay_s
        if high:
            await asyncio.sleep(rng.uniform(low, high))
        if kind == "reset":
            self._cut(kind, writer)
        if kind == "busy":
            async for _ in _body(request, reader):
                pass
            self.counts.add(kind)
            writer.write(_BUSY)
            return
        await self._forward(request, reader, writer, to_server)
        answer = await _head(from_server)
        while answer.line.split(" ")[1] == "100":
            answer = await _head(from_server)
        is_empty = request.line.startswith("HEAD ") or answer.line.split(" ")[1] in ("204", "304")
        if kind == "lost":
            async for _ in _body(answer, from_server):
                pass
            self._cut(kind, writer)
        if kind in (None, "flipped") and is_empty:
            writer.write(answer.sent())
        elif kind in (None, "flipped") or (answer.length and not is_empty):
            await self._answer(kind, rng, answer, from_server, writer)
        else:
            if not is_empty:
                async for _ in _body(answer, from_server):
                    pass
            await self._end(kind, answer.sent()[: rng.randrange(1, len(answer.sent()))], writer)
        await writer.drain()

    async def _forward(
        self,
        request: Head,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        to_server: asyncio.StreamWriter,
    ) -> None:
        if request.headers.pop("expect", None):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        to_server.write(request.sent())
        async for piece in _body(request, reader):
            self.counts.bytes_up += len(piece)
            to_server.write(piece)
            await to_server.drain()

    async def _answer(
        self,
        kind: str | None,
        rng: random.Random,
        answer: Head,
        from_server: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Send an answer that has a body, or a part of it."""
        length = answer.length
        if kind is None or not length:
            writer.write(answer.sent())
            async for piece in _body(answer, from_server):
                self.counts.bytes_down += len(piece)
                writer.write(piece)
                await writer.drain()
            return
        body = await from_server.readexactly(length)
        if kind == "flipped":
            self.counts.add(kind)
            at = rng.randrange(length)
            writer.write(answer.sent() + body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1 :])
            return
        kept = {"long": length, "short": rng.randrange(length)}.get(kind, length // 2)
        claimed = {"long": length + rng.randrange(1, 1000), "short": kept}.get(kind, length)
        self.counts.bytes_down += kept
        await self._end(kind, answer.sent(claimed) + body[:kept], writer)

    async def _end(self, kind: str, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Send the last bytes of a connection."""
        writer.write(data)
        await writer.drain()
        if kind == "stalled":
            await asyncio.sleep(self._faults.stall_s)
        self.counts.add(kind)
        writer.close()
        raise EOFError

    def _cut(self, kind: str, writer: asyncio.StreamWriter) -> None:
        """End a connection by a reset."""
        self.counts.add(kind)
        writer.transport.abort()
        raise EOFError

    def _drawn(self, request: Head) -> random.Random:
        method, target = request.line.split(" ")[:2]
        name = f"{method} {target} {request.headers.get('range')}"
        self._seen[name] += 1
        return random.Random(f"{self._faults.seed} {name} {self._seen[name]}")


async def _head(reader: asyncio.StreamReader) -> Head:
    text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = text[:-4].split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return Head(first, {name.lower(): value.strip() for name, _, value in pairs})


async def _body(head: Head, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The pieces of a body as they are sent; with their frames if it is sent in chunks."""
    if head.is_chunked:
        size = -1
        while size:
            line = await reader.readline()
            size = int(line.split(b";")[0], 16)
            yield line + await reader.readexactly(size + 2)
        return
    left = head.length or 0
    while left:
        piece = await reader.read(min(left, _PIECE))
        if not piece:
            raise EOFError
        left -= len(piece)
        yield piece


async def _serve(port: int, host: str, server_port: int, faults: Faults) -> None:
    proxy = Proxy(host, server_port, faults)
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", port, limit=1 << 20) as server:
        await server.serve_forever()


def options(server_port: int, port: int, faults: Faults) -> list[str]:
    """The words of the command line for these settings."""
    words = {
        "port": (port,),
        "server": (f"127.0.0.1:{server_port}",),
        "seed": (faults.seed,),
        "share": (faults.share,),
        "kinds": faults.kinds,
        "delay": faults.delay_s,
        "stall": (faults.stall_s,),
    }
    return [word for name, values in words.items() for word in (f"--{name}", *map(str, values))]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--server", required=True, help="host:port")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=MORE_KINDS)
    parser.add_argument("--delay", type=float, nargs=2, default=(0.0, 0.0), metavar="SECONDS")
    parser.add_argument("--stall", type=float, default=30.0, metavar="SECONDS")
    chosen = parser.parse_args()
    host, _, server_port = chosen.server.rpartition(":")
    faults = Faults(
        seed=chosen.seed,
        share=chosen.share,
        kinds=tuple(chosen.kinds),
        delay_s=tuple(chosen.delay),
        stall_s=chosen.stall,
    )
    asyncio.run(_serve(chosen.port, host, int(server_port), faults))


if __name__ == "__main__":
    main()
