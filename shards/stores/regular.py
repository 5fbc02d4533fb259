"""Opens regular files only. A FIFO, socket, device or folder in place of a file is refused at once: opening a FIFO
waits for its writer, and opening a device may have effects.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from maskstream.shards.errors import MissingFileError, OutageError, StoreError

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_NO_FILE = (errno.ENOENT, errno.ENOTDIR)
_OF_THE_NAME = (errno.EINVAL, errno.EXDEV, errno.EFBIG, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR)
NEVER_OF_BYTES = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.ETIMEDOUT)
"""Errors that no bytes can cause, whatever reads them."""
_MORE_FILES = "; raise `ulimit -n`"


def error_of(path: object, error: OSError | MemoryError, what: str = "cannot be read") -> StoreError | OutageError:
    """The error that says why a file cannot be opened or read: MissingFileError if there is none, StoreError if its
    name, kind or size forbids it. All else (no memory or descriptors left, a disk or network that fails) is an
    OutageError, for nothing is known to be wrong with the bytes.
    """
    if isinstance(error, MemoryError):
        return OutageError(f"{path} {what} now (out of memory)")
    if error.errno in _NO_FILE:
        return MissingFileError(f"{path} {what} ({error.strerror})")
    if error.errno in _OF_THE_NAME:
        return StoreError(f"{path} {what} ({error.strerror})")
    more = _MORE_FILES if error.errno == errno.EMFILE else ""
    return OutageError(f"{path} {what} now ({error.strerror or error}){more}")


def open_regular(path: Path, within: Path | None = None) -> int:
    """A descriptor of the regular file at `path`, for reading.

    within: the folder that the path may not leave by its names (`..`). Links are followed: those who hold the files
    make them, to other disks and caches. Raises OSError, whose `strerror` says why, also for what is no regular file
    and for names that no file can have.
    """
    try:
        if within is not None:
            _check_within(path, within)
        _check_regular(path, os.stat(path))
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError as error:
        raise OSError(errno.EINVAL, "no file can have this name", repr(path)) from error
    try:
        _check_regular(path, os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def stream_regular(path: Path, within: Path | None = None) -> BufferedReader:
    """The same as a stream."""
    return os.fdopen(open_regular(path, within), "rb")


def read_regular(path: Path, most: int) -> bytes:
    """The contents of a regular file. Raises OSError as `open_regular` does, and for more than `most` bytes."""
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"has {size} bytes, but at most {most} are legal", str(path))
        return file.readall()


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "of an unknown kind")
        raise OSError(errno.EINVAL, f"is {kind}, not a regular file", str(path))


def _check_within(path: Path, folder: Path) -> None:
    if path.parent == folder and path.name != "..":
        return
    place = Path(os.path.normpath(path))
    if not place.is_relative_to(os.path.normpath(folder)):
        raise OSError(errno.EXDEV, f"leads out of {folder} to {place}", str(path))
