"""Lists of thousands of rows, hostile as those of `fuzz`, in csv, JSON Lines and Parquet."""

from collections import Counter
from pathlib import Path

from . import fuzz

ROWS = 3000
"""Six of them name pictures that are there."""


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Converts pictures by `count` hostile lists."""
    return fuzz.attack_kinds(fuzz.list_kinds("long", ROWS), count, seed, folder)
