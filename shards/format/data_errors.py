"""What data make parsers and libraries raise, whoever forged them.

`Manifest.reading` catches it, which surrounds the reading and decoding of a sample in every loader. A TypeError, an
AttributeError or a RuntimeError is an error of a program, and is not caught. Neither is a MemoryError: sizes are
compared with those of members and with shards/media/limits.py before memory is taken, so it is the machine that has too
little.
"""

import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maskstream.shards.errors import DataError, MaskstreamError, OutageError, ShardError, StoreError
from maskstream.shards.stores.local_files import NEVER_OF_BYTES

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


_OWN = (DataError, ShardError, StoreError)
_FOREIGN = (
    ValueError,  # UnicodeDecodeError and json.JSONDecodeError too
    ArithmeticError,
    LookupError,
    EOFError,
    OSError,
    RecursionError,
    NotImplementedError,
    BufferError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


def find_outage(error: BaseException) -> OSError | None:
    """The error of the machine (no descriptors left, a disk that is gone) that an error is or comes from, if any."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in NEVER_OF_BYTES:
            return cause
        cause = cause.__cause__
    return None


def explain_data_error(error: Exception) -> str | None:
    """What an error says of the data that were read, on one line; None if it is not the data's."""
    if isinstance(error, _OWN):
        return str(error)
    if isinstance(error, MemoryError) or not isinstance(error, (*_FOREIGN, *_list_decoder_errors())):
        return None
    return f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"


def _list_decoder_errors() -> tuple[type[Exception], ...]:
    """The errors of FFmpeg and OpenCV, once they are in use."""
    used = (("av", "FFmpegError"), ("cv2", "error"))
    return tuple(getattr(sys.modules[module], name) for module, name in used if module in sys.modules)
