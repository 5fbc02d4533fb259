"""Versions of a split: remove, erase or append samples, divide a split, and merge splits."""

from .adding import add_sources
from .appending import Appended, append
from .dividing import Divided, Few, divide, take_few
from .erasing import Erased, Removal, erase, remove
from .merging import Merged, merge

__all__ = [
    "Appended",
    "Divided",
    "Erased",
    "Few",
    "Merged",
    "Removal",
    "add_sources",
    "append",
    "divide",
    "erase",
    "merge",
    "remove",
    "take_few",
]
