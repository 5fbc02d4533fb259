"""Names of files that are in other folders than their split's, as those that a merged split names.

Such a name is a folder and a file: `../other/train/toy-000000.tar`, or `s3://bucket/train/toy-000000.tar`. The folder
is a path from the split's own folder, which begins with `./` or `../`, or a URL.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from ..errors import StoreError
from .location import is_url, place_of

_RELATIVE = re.compile(r"\.\.?(/[^/\0]+)*")


def folder_of(name: str) -> str:
    """The folder of a name; "" for a file in the split's own folder."""
    return name.rpartition("/")[0]


def file_of(name: str) -> str:
    """A name without its folder."""
    return name.rpartition("/")[2]


def is_elsewhere(name: str) -> bool:
    """Whether a name is that of a file in another folder."""
    return bool(_RELATIVE.fullmatch(folder_of(name))) or is_url(folder_of(name))


def joined(location: str, folder: str) -> str:
    """The location of a folder of such a name, for a split at a location.

    Raises StoreError for what is none, and where a split at a URL names another server or bucket than its own, which it
    may not: who reads a URL says by it where requests go.
    """
    if is_url(folder):
        try:
            place = place_of(folder)
        except ValueError as error:
            raise StoreError(f"{location} names a folder that is none: {error}") from error
        if is_url(location) and place_of(location)[:2] != place[:2]:
            raise StoreError(f"{location} names {folder}, which is another server or bucket than its own")
        return folder
    if not _RELATIVE.fullmatch(folder):
        raise StoreError(f"{location} names the folder {folder!r}; legal are paths that begin with ./ or ../, and URLs")
    if not is_url(location):
        return str(Path(location) / folder)
    scheme, _, path = location.partition("://")
    server, _, inside = path.partition("/")
    found = posixpath.normpath(posixpath.join(inside or ".", folder))
    url = f"{scheme}://{server}" if found == "." else f"{scheme}://{server}/{found}"
    if found.startswith("..") or place_of(url)[:2] != place_of(location)[:2]:
        raise StoreError(f"{location} names the folder {folder!r}, which is outside of its server or bucket")
    return url


def seen_from(location: str | Path, target: str | Path) -> str:
    """The folder `target` as a split at `location` names it. Raises ValueError if it cannot."""
    if not is_url(location):
        if is_url(target):
            return str(target).rstrip("/")
        return _dotted(os.path.relpath(Path(target).resolve(), Path(location).resolve()))
    if not is_url(target) or place_of(str(location))[:2] != place_of(str(target))[:2]:
        raise ValueError(
            f"{location} cannot name {target}: a split at a URL names folders of its own server or bucket; choose a "
            "local folder for it, or one beside the others"
        )
    if place_of(str(location)).scheme == "hf":
        return str(target).rstrip("/")
    folders = (f"/{place_of(str(one)).folder}" for one in (target, location))
    return _dotted(posixpath.relpath(*folders))


def _dotted(path: str) -> str:
    return path if path == "." or path.startswith("..") else f"./{path}"
