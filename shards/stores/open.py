"""Opens the store of a location."""

from pathlib import Path

from .base import Store
from .block_cache import BlockCache
from .local import LocalStore
from .url import is_url


def open_store(location: str | Path, cache: BlockCache | None = None) -> Store:
    """Open the store of a location.

    Args:
        location: Path of a local folder, or URL of a folder.
        cache: Cache of the bytes that are read from a URL.

    Raises:
        ValueError: The URL is not allowed; the message lists the allowed ones.
    """
    if not isinstance(location, str | Path):
        raise ValueError(
            f"a split must be the path of a folder or a URL, got {location!r}; use `mix` for several splits"
        )
    if str(location).startswith("pipe:"):
        raise ValueError(f"{str(location)!r} looks like a shell pipe; pass a folder or its URL")
    if not is_url(location):
        return LocalStore(location)
    from .read_ahead import ReadAhead
    from .remote import RemoteStore  # a local split needs no clients of stores

    return ReadAhead(RemoteStore(str(location), cache=cache))
