"""Says which files of a folder were opened, by inotify of Linux, and which requests a server on this machine got."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IN_OPEN = 0x20


@contextmanager
def opened_files(folder: Path) -> Iterator[list[str]]:
    """Yields a list, which holds the names of the opened files of `folder` after the block."""
    libc = ctypes.CDLL(None, use_errno=True)
    notes = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(notes, os.fsencode(folder), _IN_OPEN) >= 0
    opened: list[str] = []
    try:
        yield opened
        try:
            data = os.read(notes, 1 << 16)
        except BlockingIOError:
            return
        while data:
            size = struct.unpack_from("iIII", data)[3]
            opened.append(data[16 : 16 + size].rstrip(b"\0").decode())
            data = data[16 + size :]
    finally:
        os.close(notes)


@contextmanager
def listening() -> Iterator[tuple[int, list[bytes]]]:
    """A server on 127.0.0.1: yields its port, and a list of the first bytes of each connection."""
    requests: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(1)
                requests.append(connection.recv(4096))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.getsockname()[1], requests
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()
