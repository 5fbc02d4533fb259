"""The lock that lets only one run write into a folder."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import BusyError, StoreError

log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
LOCK = ".writing"
"""The lock file. The writing run locks and later removes it; a killed run leaves it unlocked, which is harmless."""


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Lock `folder` for the block; a missing folder is created.

    Raises BusyError at once if another run holds the lock, StoreError if the folder cannot be written to. On a file
    system without locks (Lustre without `flock`, for example) the block runs unlocked, with a warning. On NFS a lock
    holds on all machines, unless it is mounted with `nolock` or `local_lock`.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path)
    except OSError as error:
        raise StoreError(f"{folder} cannot be written to ({error.strerror}); give a writable output folder") from error
    with os.fdopen(descriptor, "r+") as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path) -> int:
    """A locked descriptor of the file that is at `path` now."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(descriptor, path)
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


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log.warning(
            "the file system of %s has no locks (%s); make sure that no other run writes there",
            path.parent,
            error.strerror,
        )
