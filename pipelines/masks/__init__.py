"""Masks."""

from __future__ import annotations

from collections.abc import Callable

from .base import Mask, mask_batch
from .grid import TokenGrid
from .random import Random
from .ratio import Fixed, Law, Rounding, visible_count
from .tube import Tube

MASKS: dict[str, Callable[[], Mask]] = {"random": Random, "tube": Tube}

__all__ = ["MASKS", "Fixed", "Law", "Mask", "Random", "Rounding", "TokenGrid", "Tube", "mask_batch", "visible_count"]
