"""Map exceptions that damaged or hostile data causes in parsers and libraries to errors of samples and shards.

`Manifest.reading`, which surrounds the reading and decoding of a sample in every loader, catches them. A TypeError, an
AttributeError or a RuntimeError is a bug and is not caught. Neither is a MemoryError: sizes are compared with the
members' sizes and with shards/media/limits.py before memory is allocated, so the cause must be the machine.
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
    "run the same `maskstream shards` again, which keeps intact shards and rewrites their index, or "
    "`maskstream index` for foreign tars"
)


@contextmanager
def parsing(path: str | Path) -> Iterator[None]:
    """Turn every exception of the block except MaskstreamError into a ShardError that names `path`.

    Parsers raise exceptions of many kinds on hostile data (ArrowException, KeyError, OverflowError, MemoryError,
    RecursionError, ...), and libraries add new ones, so a list of them would never be complete.

    Raises:
        ShardError: The data cannot be parsed.
        OutageError: The data cannot be the cause, for example if too many files are open.
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
    """Return an exception on one line: the system's reason, or the exception's name and message."""
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
    """Return the machine's error (no descriptors left, a lost disk) behind an error; None if there is none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in NEVER_OF_BYTES:
            return cause
        cause = cause.__cause__
    return None


def explain_data_error(error: Exception) -> str | None:
    """Return one line that explains how the data caused an error; None if the data did not cause it."""
    if isinstance(error, _OWN):
        return str(error)
    if isinstance(error, MemoryError) or not isinstance(error, (*_FOREIGN, *_list_decoder_errors())):
        return None
    return f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"


def _list_decoder_errors() -> tuple[type[Exception], ...]:
    """Return the exception classes of FFmpeg and OpenCV, if these libraries are in use."""
    used = (("av", "FFmpegError"), ("cv2", "error"))
    return tuple(getattr(sys.modules[module], name) for module, name in used if module in sys.modules)
