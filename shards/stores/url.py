"""Locations: the path of a local folder, or the URL of a folder in a store, and the parts of a URL."""

import os
import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from .base import Store

SCHEMES = ("s3", "gs", "az", "http", "https", "hf")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_USER = re.compile(r"(?<=://)[^/?#\s]*@")
_SPOILT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(.*)", re.DOTALL)
_HUB = "https://huggingface.co"
_REPOSITORY = re.compile(r"datasets/([^/@]+)/([^/@]+)(?:@([^/]+))?(?:/(.*))?")


class StorePlace(NamedTuple):
    """A folder in a store.

    Attributes:
        scheme: Scheme of the client that reads it.
        bucket: Bucket; for http the scheme and host of the server, and for hf the URL of the repository's revision.
        folder: Path of the folder in the bucket, without a `/` at either end.
    """

    scheme: str
    bucket: str
    folder: str


def is_url(location: str | Path | Store) -> bool:
    """Return True if a location is a URL. Raises ValueError for a URL that `Path` has mangled."""
    if isinstance(location, Path) and repair_spoilt_url(location):
        raise ValueError(f"{location} was a URL, which pathlib.Path has changed; pass it as a str")
    return isinstance(location, str) and bool(_URL.match(location))


def repair_spoilt_url(path: Path) -> str | None:
    """Return the URL that a path was before `Path` removed a `/` from it; None if it was not a URL."""
    found = _SPOILT.match(str(path))
    return f"{found[1]}://{found[2]}" if found else None


def get_local_path(location: str | Path, what: str) -> Path:
    """Return the path of a location that must be local. Raises ValueError for a URL.

    Args:
        location: Path or URL.
        what: Use of the location, such as "--out", for the message.
    """
    if is_url(location) or str(location).startswith("pipe:"):
        raise ValueError(f"{what} {str(location)!r}: expected a local path")
    return Path(location)


def beside(location: str, name: str) -> str:
    """Return the location `name` in the folder that holds `location`."""
    if is_url(location):
        return f"{location.rstrip('/').rpartition('/')[0]}/{name}"
    return str(Path(location).resolve().parent / name)


def split_name(location: str, split: str) -> str:
    """Return the name of a split for users.

    It is the name of its folder, such as `pets-val`. If that is just the name of the split, the folder above is
    prepended: `pets/val`.
    """
    path = location if is_url(location) else str(Path(location).absolute())
    above, own = ["", *path.rstrip("/").split("/")][-2:]
    return f"{above}/{own}" if above and own == split else own


def hide_password(text: str) -> str:
    """Remove users and passwords from the URLs of a text."""
    return _USER.sub("", text)


def parse_place(url: str) -> StorePlace:
    """Return the parts of a URL. Raises ValueError if it is not allowed."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        legal = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"{hide_password(url)}: expected a local path or a URL that begins with {legal}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            f"{parts.scheme}://{parts.hostname}{parts.path}: user names, passwords, queries and fragments are not "
            "allowed in a location; pass credentials as environment variables"
        )
    if not parts.netloc:
        raise ValueError(f"{url} has no {'server' if parts.scheme.startswith('http') else 'bucket'}")
    if parts.scheme == "hf":
        return _resolve_hub_url(url)
    if parts.scheme in ("http", "https"):
        return StorePlace("http", f"{parts.scheme}://{parts.netloc}", _folder(url, unquote(parts.path)))
    bucket, _, folder = url.partition("://")[2].partition("/")
    return StorePlace(parts.scheme, bucket, _folder(url, folder))


def _resolve_hub_url(url: str) -> StorePlace:
    found = _REPOSITORY.fullmatch(url.partition("://")[2].rstrip("/"))
    if not found:
        raise ValueError(f"{url}: expected hf://datasets/OWNER/NAME/FOLDER or hf://datasets/OWNER/NAME@REVISION/FOLDER")
    owner, name, revision, folder = found.groups()
    hub = parse_place(os.environ.get("HF_ENDPOINT") or _HUB)
    path = f"datasets/{owner}/{name}/resolve/{quote(unquote(revision or 'main'), safe='')}"
    return StorePlace("hf", "/".join(filter(None, (hub.bucket, hub.folder, path))), _folder(url, folder or ""))


def _folder(url: str, path: str) -> str:
    """Return the path of a folder without a `/` at either end. Raises ValueError for `.` and `..`."""
    names = [name for name in path.split("/") if name]
    if {".", ".."} & set(names):
        raise ValueError(f"{url}: '.' and '..' are not allowed in a URL")
    return str(PurePosixPath(*names)) if names else ""
