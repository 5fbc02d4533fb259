"""Cache folders: their contents are trusted, so no other user may write to them."""

import os
from pathlib import Path

_OTHERS_MAY_WRITE = 0o022


def make_own_folder(folder: Path) -> Path:
    """Return the folder, created with mode 0700 if missing; or `uid-N` in it, if other users may write to the folder.

    Raises ValueError if others may write to both, and OSError if they cannot be created.
    """
    for own in (folder, folder / f"uid-{os.geteuid()}"):
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = own.stat()
        if status.st_uid in (0, os.geteuid()) and not status.st_mode & _OTHERS_MAY_WRITE:
            return own
    raise ValueError(
        f"{own} belongs to user {status.st_uid} and has mode {status.st_mode & 0o7777:04o}: others could put "
        "files there that this process would trust; remove it, or choose a different cache folder"
    )
