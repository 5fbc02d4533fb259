"""One run at a time writes into a folder."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import BusyError, StoreError

LOCK = ".writing"
"""Locked by the run that writes, which removes it; one that a killed run left behind is not locked, and no obstacle."""


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Inside, no other run holds `folder`, which is made where there is none; BusyError at once where one does,
    StoreError where nothing can be written.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path)
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be written to ({error.strerror}); give an output folder that can be made or written"
        ) from error
    with os.fdopen(descriptor, "r+") as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path) -> int:
    """A descriptor of the file that stands at `path` now, locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise BusyError(
                f"another run writes to {path.parent} ({holder}); wait for it, end it, or choose another output folder"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
