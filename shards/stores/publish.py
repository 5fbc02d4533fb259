"""A file appears whole or not at all: temp file in the same folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import StoreError

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def publishing(path: Path) -> Iterator[BinaryIO]:
    """A stream to write `path` through; leaving the block publishes it, an exception leaves no trace.

    StoreError where there is no room. After a kill the temp file `.NAME.RANDOM.tmp` may stay; `remove_leftovers`
    deletes those.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise StoreError(
                f"no room for {path} ({error.strerror}); make room and run the same command again"
            ) from error
        raise
    sync_folder(path.parent)


def publish(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all."""
    with publishing(path) as stream:
        stream.write(data)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` (a rename, a removal) survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> int:
    """Delete the temp files that killed writers left in `folder`, while nothing writes there. Returns how many."""
    leftovers = [path for path in folder.glob(".*.tmp") if _TEMPORARY.fullmatch(path.name) and not path.is_dir()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)
