"""Locations: where a split is. A location is the path of a local folder."""

from __future__ import annotations

from pathlib import Path

from .base import Store
from .local import LocalStore


def opened(location: str | Path | Store) -> Store:
    """The store of a location; a store itself is returned as it is."""
    return LocalStore(location) if isinstance(location, str | Path) else location


def beside(location: str, name: str) -> str:
    """The location `name` in the folder that holds `location`."""
    return str(Path(location).resolve().parent / name)
