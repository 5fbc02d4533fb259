"""Runs the servers of the tests: on free ports, in folders of their own, and not longer than the tests."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

START_S = 60
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_PATHS = (str(Path(sys.prefix) / "bin"), str(Path(sys.prefix) / "services/node_modules/.bin"), "/usr/sbin", "/sbin")


def program(name: str) -> str:
    """The path of a server's program; skips the test if it is not installed."""
    path = shutil.which(name, path=os.pathsep.join((*_PATHS, os.environ.get("PATH", ""))))
    if path is None:
        pytest.skip(f"{name} is not installed; `make test-services` installs what the tests of servers need")
    return path


def listens(port: int) -> bool:
    """Whether a server accepts connections at this port of 127.0.0.1."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def running(
    command: Sequence[str],
    folder: Path,
    *,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    log: str = "log",
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of `command` in `folder`, from when `ready` says so; at the end it and its children are killed.

    It dies with the thread that starts it, also if that is killed. What it says is in the file `log` of the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / log).open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "HOME": str(folder), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        wait_until(ready, lambda: said(process, folder / log))
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def said(process: subprocess.Popen[bytes], log: Path) -> str | None:
    """None while a process runs; else how it ended and the end of what it said."""
    return None if process.poll() is None else f"ended with {process.returncode}: {log.read_text()[-2000:]}"


def wait_until(ready: Callable[[], bool], failed: Callable[[], str | None], seconds: float = START_S) -> None:
    """Wait until `ready`; raises RuntimeError when `failed` says why that will never be, or after `seconds`."""
    last = time.monotonic() + seconds
    while not ready():
        why = failed()
        if why is None and time.monotonic() > last:
            why = f"was not ready after {seconds:g} s"
        if why is not None:
            raise RuntimeError(why)
        time.sleep(0.05)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
