"""Refuses what is no regular file before a library opens it: a pipe would wait for its writer without end."""

from pathlib import Path

from maskstream.preprocess.source import RejectError
from maskstream.shards.media.local_media import MediaError, regular_size


def check_source_file(path: Path) -> None:
    """Raise RejectError for a folder, a pipe, a socket or a device, and for a file that cannot be looked at."""
    try:
        regular_size(path)
    except MediaError as error:
        raise RejectError("open", str(error)) from error
    except OSError as error:
        raise RejectError("open", f"cannot be read: {error.strerror}") from error
