"""Turns whatever a parser raises about hostile or damaged data into ShardError, at the entries of the shard format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maskstream.shards.errors import MaskstreamError, OutageError, ShardError
from maskstream.shards.stores.regular import NEVER_OF_BYTES

REMEDY = (
    "run the same `maskstream shards` again, which keeps whole shards and writes their index anew, or "
    "`maskstream index` for foreign tars"
)


@contextmanager
def parsing(path: str | Path) -> Iterator[None]:
    """Raises ShardError, which names `path`, for every exception of the block but MaskstreamError; OutageError for what
    no bytes can cause, such as too many open files.

    Parsers raise exceptions of many kinds about hostile data (ArrowException, KeyError, OverflowError, MemoryError,
    RecursionError, ...), and libraries add new ones, so no list of them would be whole.
    """
    try:
        yield
    except MaskstreamError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NEVER_OF_BYTES:
            raise OutageError(f"{path} cannot be read now ({described(error)})") from error
        raise ShardError(f"{path} cannot be read ({described(error)}); {REMEDY}") from error


def described(error: Exception) -> str:
    """An exception in one line: the reason that the system gives, or its name and its message."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
