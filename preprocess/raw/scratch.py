"""Temporary folders that are always deleted: if a process is killed, the next one deletes its folder.

Each folder has a mark: a file with the folder's name and inode. The mark proves that this module created the folder.
Nothing else is deleted, whatever its name, not even a copy of such a folder.
"""

import fcntl
import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

from maskstream.shards.stores.local_files import read_regular

_PREFIX = "maskstream-raw-"
_MARK = "maskstream.scratch"
_MARK_BYTES = 1000
_FILES = "files"


class Scratch:
    """An empty `folder`, locked by this process, that is deleted by `close` or with this object.

    Folders of killed processes are no longer locked, and are deleted first.
    """

    def __init__(self) -> None:
        parent = Path(tempfile.gettempdir())
        for other in parent.glob(f"{_PREFIX}*"):
            _delete_unlocked(other)
        made, lock = _lock_folder(parent)
        self.folder = made / _FILES
        self.folder.mkdir()
        self._finish = weakref.finalize(self, _close, made, lock)

    def close(self) -> None:
        """Delete the folder."""
        self._finish()


def _lock_folder(parent: Path) -> tuple[Path, int]:
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / _MARK).write_bytes(_mark_text(folder, lock))
    return folder, lock


def _mark_text(folder: Path, opened: int) -> bytes:
    return f"{folder.name} {os.fstat(opened).st_ino}\n".encode()


def _delete_unlocked(folder: Path) -> None:
    with suppress(OSError):  # owned by another user, already deleted, locked, or without a mark
        lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if read_regular(folder / _MARK, _MARK_BYTES) == _mark_text(folder, lock):
                _delete(folder)
        finally:
            os.close(lock)


def _delete(folder: Path) -> None:
    """Delete the files first and the mark last: after a kill in between, another process can delete the folder."""
    shutil.rmtree(folder / _FILES, ignore_errors=True)
    if (folder / _FILES).exists():
        return
    with suppress(OSError):
        (folder / _MARK).unlink(missing_ok=True)
        folder.rmdir()


def _close(folder: Path, lock: int) -> None:
    _delete(folder)
    os.close(lock)
