"""Files of a local folder: only regular files are opened, new files appear whole, and one run at a time writes.

A FIFO, socket, device or folder in place of a file is refused at once: opening a FIFO waits for its writer, and opening
a device may have side effects. A file is published atomically: temporary file in the same folder, fsync, rename, fsync
of the folder. A lock belongs to one run, or to several runs that coordinate their writes.
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
"""Errors caused by the machine, not by the contents of a file."""
_MORE_FILES = "; raise `ulimit -n`"


def make_error(path: object, error: OSError | MemoryError, what: str = "cannot be read") -> StoreError | OutageError:
    """Return the error for a file that cannot be opened or read.

    MissingFileError means that it does not exist, StoreError that its name, kind or size forbids it. Everything else
    (no memory or descriptors left, a failing disk or network) is an OutageError, since the bytes may be fine.
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
    """Open the regular file at `path` for reading, and return its descriptor.

    Links are followed, because the owners of the files make them, to other disks and caches.

    Args:
        path: Path of the file.
        within: Folder that the path must not leave through `..`.

    Raises:
        OSError: The file cannot be opened, is not regular, or has an impossible name. `strerror` gives the reason.
    """
    try:
        if within is not None:
            _check_within(path, within)
        _check_regular(path, os.stat(path))
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError as error:
        raise OSError(errno.EINVAL, "not a valid file name", repr(path)) from error
    try:
        _check_regular(path, os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def stream_regular(path: Path, within: Path | None = None) -> BufferedReader:
    """Open the regular file at `path` as a stream; see `open_regular`."""
    return os.fdopen(open_regular(path, within), "rb")


def read_regular(path: Path, most: int) -> bytes:
    """Return the contents of a regular file. Raises OSError as `open_regular` does, and for more than `most` bytes."""
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"has {size} bytes, but at most {most} are allowed", str(path))
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
        raise OSError(errno.EXDEV, f"leads outside {folder}, to {place}", str(path))


_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_NAME_BYTES = 255
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


@contextmanager
def publishing(path: Path, *, alone: bool = False) -> Iterator[BinaryIO]:
    """Open a stream that writes `path`. Leaving the block publishes the file; an exception removes it.

    A killed process may leave the temporary file `.NAME.RANDOM.tmp`, which `remove_leftovers` deletes.

    Args:
        path: Path of the file.
        alone: First delete this file's temporary files that no process is writing any more. Use it for files in a
            folder that is not ours.

    Raises:
        StoreError: The disk is full or the name is too long.
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
    """Lock a file. Returns False if another process holds the lock or the file system has none."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _open_new(temporary: Path, path: Path) -> BinaryIO:
    try:
        return temporary.open("xb")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # the name that the user passed


def _temporary(path: Path) -> Path:
    """Return a new temporary name next to `path`, with as much of its name as fits. Raises StoreError if that is too
    long.
    """
    name = os.fsencode(path.name)
    if len(name) > _NAME_BYTES:
        raise StoreError(
            f"the name {path.name[:40]}... has {len(name)} bytes; use a name of at most {_NAME_BYTES} bytes"
        )
    ending = f".{secrets.token_hex(4)}.tmp"
    return path.with_name(f".{os.fsdecode(name[: _NAME_BYTES - 1 - len(ending)])}{ending}")


@contextmanager
def check_space_for(path: Path) -> Iterator[None]:
    """Raise StoreError, which names `path`, if the block finds the disk full."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StoreError(
            f"not enough space to write {path} ({error.strerror}); free space and run the same command again"
        ) from error


def publish(path: Path, data: bytes) -> None:
    """Write and publish a file."""
    with publishing(path) as stream:
        stream.write(data)


def create(path: Path, data: bytes) -> bool:
    """Publish a file unless it exists. Returns True if this call created it; only one of several concurrent writers
    does.
    """
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
    """Ensure that changes of names in `folder` (renames, removals) survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> int:
    """Delete the temporary files of killed writers in `folder`, and return their number. No writer
    may be active there.
    """
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
    """Lock `folder` for the block. A missing folder is created.

    On a file system without locks (Lustre without `flock`, for example) the block runs unlocked, with a warning. On NFS
    a lock holds on all machines, unless it is mounted with `nolock` or `local_lock`.

    Raises:
        BusyError: Another run holds the lock; raised at once.
        StoreError: The folder cannot be written to.
    """
    with _hold_lock(folder, fcntl.LOCK_EX):
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


def is_being_written(folder: Path) -> bool:
    """Return True if a run holds the lock of `folder`."""
    if not (folder / LOCK).exists():
        return False
    try:
        with joint_writer(folder):
            return False
    except BusyError:
        return True


@contextmanager
def joint_writer(folder: Path) -> Iterator[None]:
    """Lock `folder` for the block, shared with other joint writers but not with a sole writer.

    The last joint writer removes the lock file. Raises the same errors as `sole_writer`.
    """
    path = folder / LOCK
    with _hold_lock(folder, fcntl.LOCK_SH) as descriptor:
        try:
            yield
        finally:
            with suppress(BlockingIOError):  # other processes are still writing
                _lock(descriptor, path, fcntl.LOCK_EX)
                path.unlink(missing_ok=True)


@contextmanager
def _hold_lock(folder: Path, how: int) -> Iterator[int]:
    """Yield a descriptor of the lock file, which is locked for the block and names this process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open_locked(folder / LOCK, how)
    except OSError as error:
        raise StoreError(f"{folder} cannot be written to ({error.strerror}); pass a writable output folder") from error
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        with check_space_for(folder / LOCK):
            file.truncate(0)
            file.write(f"{this_run()}\n".encode())
        yield descriptor


def _open_locked(path: Path, how: int) -> int:
    """Open and lock the file that is at `path` now, and return its descriptor."""
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
                f"another run is writing to {path.parent} ({holder}); wait for it, stop it, or choose a "
                "different output folder"
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
    """Return the process and host of this run, as text."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def is_maybe_running(name: str) -> bool:
    """Return True if a run of this name may still be running: it is on another host, or it is another live process
    here.
    """
    found = re.fullmatch(r"process (\d+) on (.*)", name)
    if found is None or found[2] != socket.gethostname():
        return True
    return int(found[1]) != os.getpid() and Path("/proc", found[1]).exists()
