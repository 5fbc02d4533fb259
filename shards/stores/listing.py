"""A listing: the sizes of the files of an output, as they were at one time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Listing:
    """The folder's location, and the size of each file by its name."""

    location: str
    by_name: Mapping[str, int]

    def size(self, name: str) -> int | None:
        """The size of a file in bytes; None if there was none."""
        return self.by_name.get(name)
