"""Versions of a split: samples are removed from it, others are appended, and splits are merged."""

from .appending import Appended, append
from .removal import Removal, remove

__all__ = ["Appended", "Removal", "append", "remove"]
