"""Versions of a split: samples are removed or erased from it, others are appended, and splits are merged."""

from .adding import add_sources
from .appending import Appended, append
from .erasing import Erased, Removal, erase, remove
from .merging import Merged, merge

__all__ = ["Appended", "Erased", "Merged", "Removal", "add_sources", "append", "erase", "merge", "remove"]
