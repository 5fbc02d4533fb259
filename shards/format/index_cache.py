"""Index files, one per manifest and machine: they are unpacked once, and every process maps them.

They are in the folder `indexes` of the cache folder, named by a checksum of the checksums of the parts. So the same
manifest has one index, wherever its split is, and another manifest never meets it. The folder may be deleted at any
time. A small manifest, and any manifest where the folder cannot be written to, is unpacked into memory.
"""

from __future__ import annotations

import fcntl
import io
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from platformdirs import user_cache_path

from maskstream.shards.errors import StoreError
from maskstream.shards.stores.publish import publishing

from .damage import described
from .index_file import IndexFile, SpoolError

log = logging.getLogger(__name__)

CACHE = "MASKSTREAM_CACHE"
"""The environment variable that names the cache folder."""
SMALL_BYTES = 8 << 20
"""Manifests whose parts have at most so many bytes are unpacked into memory; it takes about 0.1 s."""

NewFile = Callable[[], BinaryIO]
Unpack = Callable[[NewFile, BinaryIO], None]
"""Unpacks the parts into the stream with the help of temporary files. It may be called twice."""


def cache_folder() -> Path:
    """The folder of what may be made again: MASKSTREAM_CACHE, or `maskstream` in the user's cache folder."""
    return Path(os.environ.get(CACHE) or user_cache_path("maskstream"))


def index_of(key: str, size_bytes: int, unpack: Unpack) -> IndexFile:
    """The index file with the name `key` of a manifest whose parts have `size_bytes` bytes.

    Raises what `unpack` raises, but OSError only if neither the cache folder nor memory can hold the index.
    """
    if size_bytes <= SMALL_BYTES:
        return in_memory(unpack)
    folder = cache_folder() / "indexes"
    path = folder / f"{key}.index"
    if (index := _whole(path, key)) is not None:
        return index
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(folder):
            if (index := _whole(path, key)) is not None:  # another process unpacked it meanwhile
                return index
            for leftover in folder.glob(f".{path.name}.*.tmp"):
                leftover.unlink(missing_ok=True)
            with publishing(path) as stream:
                unpack(partial(_temporary, folder), stream)
        index = IndexFile.at(path)
    except (OSError, SpoolError, StoreError, ValueError) as error:
        if isinstance(error, StoreError) and not isinstance(error.__cause__, OSError):
            raise  # of the split, not of the cache folder
        log.warning(
            "%s cannot hold the index of a manifest (%s), so each process has it in its own memory; give a folder "
            "with %s",
            folder,
            described(error),
            CACHE,
        )
        return in_memory(unpack)
    return index


def forget(key: str) -> None:
    """Delete the index file with this name; processes that have mapped it keep it."""
    with suppress(OSError):
        (cache_folder() / "indexes" / f"{key}.index").unlink(missing_ok=True)


def in_memory(unpack: Unpack) -> IndexFile:
    """The index file in memory that has no name."""
    with _unnamed() as stream:
        unpack(io.BytesIO, stream)
        stream.flush()
        return IndexFile(os.dup(stream.fileno()))


def _temporary(folder: Path) -> BinaryIO:
    """A temporary file without a name, and without a buffer, whose end could meet a full disk."""
    return cast(BinaryIO, tempfile.TemporaryFile(dir=folder, buffering=0))


def _unnamed() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("maskstream", os.MFD_CLOEXEC), "w+b")
    return tempfile.TemporaryFile()


def _whole(path: Path, key: str) -> IndexFile | None:
    """The index file at `path` if it is whole and has this key."""
    with suppress(OSError, ValueError, KeyError):
        index = IndexFile.at(path)
        if index.header["key"] == key:
            return index
    return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process unpacks into the folder. Where there are no locks, several may do the same."""
    with open(folder / ".unpacking", "ab") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
