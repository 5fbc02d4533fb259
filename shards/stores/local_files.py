"""Files of a local folder: only regular ones are opened, new ones appear whole, and one run writes there alone.

A FIFO, socket, device or folder in place of a file is refused at once: opening a FIFO waits for its writer, and opening
a device may have effects. A file is published atomically: temporary file in the same folder, fsync, rename, fsync of
the folder. A lock is of one run, or of several that agree on what they write.
"""

import errno
import fcntl
import glob
import logging
import os
import re
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from maskstream.shards.errors import BusyError, MissingFileError, OutageError, StoreError

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


def make_error(path: object, error: OSError | MemoryError, what: str = "cannot be read") -> StoreError | OutageError:
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


_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_NAME_BYTES = 255
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


@contextmanager
def publishing(path: Path, *, alone: bool = False) -> Iterator[BinaryIO]:
    """A stream that writes `path`. Leaving the block publishes the file; an exception removes it.

    Raises StoreError if the disk is full or the name too long. A kill may leave the temporary file `.NAME.RANDOM.tmp`,
    which `remove_leftovers` deletes. alone: first delete those of this file that no process writes any more; for
    files in a folder that is not ours.
    """
    if alone:
        _remove_abandoned(path)
    temporary = _temporary(path)
    try:
        with check_space_for(path), _open_new(temporary, path) as stream:
            if alone:
                _lock_file(stream)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _remove_abandoned(path: Path) -> None:
    """Delete the temporary files of `path` that no process has locked: their writers were killed."""
    own = _temporary(path).name
    for other in path.parent.glob(f"{glob.escape(own[:-12])}*.tmp"):
        if _TEMPORARY.fullmatch(other.name) and len(other.name) == len(own):
            with suppress(OSError), other.open("rb") as stream:
                if _lock_file(stream):
                    other.unlink()


def _lock_file(stream: BinaryIO) -> bool:
    """Lock a file, if nobody else has and its file system can."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _open_new(temporary: Path, path: Path) -> BinaryIO:
    try:
        return temporary.open("xb")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # the name that the user has given


def _temporary(path: Path) -> Path:
    """A new name beside `path`, with as much of its name as there is room for; StoreError if that one is too long."""
    name = os.fsencode(path.name)
    if len(name) > _NAME_BYTES:
        raise StoreError(
            f"{path.name[:40]}... is a name of {len(name)} bytes; a file has at most {_NAME_BYTES}, give a shorter one"
        )
    ending = f".{secrets.token_hex(4)}.tmp"
    return path.with_name(f".{os.fsdecode(name[: _NAME_BYTES - 1 - len(ending)])}{ending}")


@contextmanager
def check_space_for(path: Path) -> Iterator[None]:
    """Raises StoreError, which names `path`, where the block finds the disk full."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StoreError(
            f"no space to write {path} ({error.strerror}); free space and run the same command again"
        ) from error


def publish(path: Path, data: bytes) -> None:
    """Write and publish a file."""
    with publishing(path) as stream:
        stream.write(data)


def create(path: Path, data: bytes) -> bool:
    """Publish a file unless there is one; returns whether it did. Of several writers at once, one does."""
    temporary = _temporary(path)
    try:
        with check_space_for(path), temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            return False
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Make changes of names in `folder` (renames, removals) survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> int:
    """Delete the temporary files of killed writers in `folder`; returns how many. No writer may be active there."""
    leftovers = [path for path in folder.glob(".*.tmp") if _TEMPORARY.fullmatch(path.name) and not path.is_dir()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


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
    with _hold_lock(folder, fcntl.LOCK_EX):
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


def is_being_written(folder: Path) -> bool:
    """Whether a run holds the lock of `folder`."""
    if not (folder / LOCK).exists():
        return False
    try:
        with joint_writer(folder):
            return False
    except BusyError:
        return True


@contextmanager
def joint_writer(folder: Path) -> Iterator[None]:
    """Lock `folder` for the block, beside other joint writers but no sole writer. The errors are those of
    `sole_writer`. The last joint writer removes the lock file.
    """
    path = folder / LOCK
    with _hold_lock(folder, fcntl.LOCK_SH) as descriptor:
        try:
            yield
        finally:
            with suppress(BlockingIOError):  # others still write
                _lock(descriptor, path, fcntl.LOCK_EX)
                path.unlink(missing_ok=True)


@contextmanager
def _hold_lock(folder: Path, how: int) -> Iterator[int]:
    """A descriptor of the lock file, which is locked for the block and names this process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open_locked(folder / LOCK, how)
    except OSError as error:
        raise StoreError(f"{folder} cannot be written to ({error.strerror}); give a writable output folder") from error
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        with check_space_for(folder / LOCK):
            file.truncate(0)
            file.write(f"{this_run()}\n".encode())
        yield descriptor


def _open_locked(path: Path, how: int) -> int:
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


def is_run_allowed(name: str) -> bool:
    """Whether a run of this name may go on. On another host it may; on this one its process tells."""
    found = re.fullmatch(r"process (\d+) on (.*)", name)
    if found is None or found[2] != socket.gethostname():
        return True
    return int(found[1]) != os.getpid() and Path("/proc", found[1]).exists()
