"""Publishes files atomically: temporary file in the same folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from maskstream.shards.errors import StoreError

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


@contextmanager
def publishing(path: Path) -> Iterator[BinaryIO]:
    """A stream that writes `path`. Leaving the block publishes the file; an exception removes it.

    Raises StoreError if the disk is full. A kill may leave the temporary file `.NAME.RANDOM.tmp`, which
    `remove_leftovers` deletes.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with space_for(path), temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def space_for(path: Path) -> Iterator[None]:
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
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with space_for(path), temporary.open("xb") as stream:
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
