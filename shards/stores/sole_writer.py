"""The locks of a folder: one run writes there alone, or several that agree on what they write do so jointly."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from maskstream.shards.errors import BusyError, StoreError

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
    with _holding(folder, fcntl.LOCK_EX):
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


@contextmanager
def joint_writer(folder: Path) -> Iterator[None]:
    """Lock `folder` for the block, beside other joint writers but no sole writer. The errors are those of
    `sole_writer`. The last joint writer removes the lock file.
    """
    path = folder / LOCK
    with _holding(folder, fcntl.LOCK_SH) as descriptor:
        try:
            yield
        finally:
            with suppress(BlockingIOError):  # others still write
                _lock(descriptor, path, fcntl.LOCK_EX)
                path.unlink(missing_ok=True)


@contextmanager
def _holding(folder: Path, how: int) -> Iterator[int]:
    """A descriptor of the lock file, which is locked for the block and names this process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(folder / LOCK, how)
    except OSError as error:
        raise StoreError(f"{folder} cannot be written to ({error.strerror}); give a writable output folder") from error
    with os.fdopen(descriptor, "r+") as file:
        file.truncate(0)
        file.write(f"{this_run()}\n")
        file.flush()
        yield descriptor


def _locked(path: Path, how: int) -> int:
    """A locked descriptor of the file that is at `path` now."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(descriptor, path, how)
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


def _lock(descriptor: int, path: Path, how: int) -> None:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log.warning(
            "the file system of %s has no locks (%s); make sure that no other run writes there",
            path.parent,
            error.strerror,
        )


def this_run() -> str:
    """The process and the host of this run."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def may_run(name: str) -> bool:
    """Whether a run of this name may go on. On another host it may; on this one its process tells."""
    found = re.fullmatch(r"process (\d+) on (.*)", name)
    if found is None or found[2] != socket.gethostname():
        return True
    return int(found[1]) != os.getpid() and Path("/proc", found[1]).exists()
