"""Starts the proxy of faults.py in a process of its own, so that it takes no time of what it tests."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..ports import free_ports
from . import faults
from .faults import Counts, Faults
from .server import listens, running


@dataclass(frozen=True, slots=True)
class RunningProxy:
    """A proxy at a port of 127.0.0.1."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def counts(self) -> Counts:
        """What it has seen so far."""
        with urllib.request.urlopen(f"{self.url}/.counts") as answer:
            return Counts(**json.load(answer))


@contextmanager
def proxied(server_port: int, faults_: Faults, folder: Path) -> Iterator[RunningProxy]:
    """A proxy before the server at a port of 127.0.0.1; `folder` gets its log."""
    [port] = free_ports(1)
    command = [sys.executable, "-I", faults.__file__, *faults.options(server_port, port, faults_)]
    with running(command, folder, ready=lambda: listens(port)):
        yield RunningProxy(port)
