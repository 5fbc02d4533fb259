"""Ports of 127.0.0.1 for servers and ranks, which bind them later than a test chooses them."""

from __future__ import annotations

import fcntl
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

_FIRST, _COUNT = 20_000, 12_000
"""Below those that Linux gives to sockets that ask for any, above those that Ray gives to its workers."""
_HELD: list[IO[bytes]] = []


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens. No other process gets them from here as long as this one lives.

    A locked file stands for each, so that tests side by side do not choose the same before either has bound it.
    """
    folder = Path(tempfile.gettempdir()) / "maskstream-test-ports"
    folder.mkdir(exist_ok=True)
    found: list[int] = []
    for port in random.SystemRandom().sample(range(_FIRST, _FIRST + _COUNT), _COUNT):
        if len(found) == count:
            break
        held = (folder / str(port)).open("ab")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as one:
                one.bind(("127.0.0.1", port))
        except OSError:
            held.close()
            continue
        _HELD.append(held)
        found.append(port)
    assert len(found) == count, "no ports are free"
    return found
