"""Temporary folders that nothing leaves behind: what a killed process leaves, the next one deletes."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

_PREFIX = "maskstream-raw-"


class Scratch:
    """An empty folder, locked by this process, that is deleted by `close` or with this object.

    The folders of processes that ended without that have no lock any more, and are deleted first.
    """

    def __init__(self) -> None:
        parent = Path(tempfile.gettempdir())
        for other in parent.glob(f"{_PREFIX}*"):
            _delete_unlocked(other)
        self.folder, lock = _locked_folder(parent)
        self._finish = weakref.finalize(self, _delete, self.folder, lock)

    def close(self) -> None:
        """Delete the folder."""
        self._finish()


def _locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        with suppress(FileNotFoundError):  # another process may see it before it is locked, and delete it
            lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder, lock
            os.close(lock)


def _delete_unlocked(folder: Path) -> None:
    with suppress(OSError):  # of another user, or deleted meanwhile, or locked
        lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _delete(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)
