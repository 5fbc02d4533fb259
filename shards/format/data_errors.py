"""What data make parsers and libraries raise, whoever forged them.

`Manifest.reading` catches it, which surrounds the reading and decoding of a sample in every loader. A TypeError, an
AttributeError or a RuntimeError is an error of a program, and is not caught. Neither is a MemoryError: sizes are
compared with those of members and with shards/media/limits.py before memory is taken, so it is the machine that has too
little.
"""

from __future__ import annotations

import struct
import sys
import zipfile
import zlib

import cv2

from maskstream.shards.errors import DataError, ShardError, StoreError
from maskstream.shards.stores.regular import NEVER_OF_BYTES

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
    cv2.error,
)


def outage_of(error: BaseException) -> OSError | None:
    """The error of the machine (no descriptors left, a disk that is gone) that an error is or comes from, if any."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in NEVER_OF_BYTES:
            return cause
        cause = cause.__cause__
    return None


def data_reason(error: Exception) -> str | None:
    """What an error says of the data that were read, on one line; None if it is not the data's."""
    if isinstance(error, _OWN):
        return str(error)
    if isinstance(error, MemoryError) or not isinstance(error, (*_FOREIGN, *_ffmpeg())):
        return None
    return f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"


def _ffmpeg() -> tuple[type[Exception], ...]:
    """The errors of FFmpeg, once a decoder is in use."""
    av = sys.modules.get("av")
    return () if av is None else (av.FFmpegError,)
