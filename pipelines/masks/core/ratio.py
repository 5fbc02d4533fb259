"""Roundings turn a ratio into an exact number of tokens; a law says what the ratio is (laws.py).

Published code computes these numbers in floats and in several ways, which differ by a token at one ratio. Here the
arithmetic is decimal and exact (0.9 is 9/10), and the way is named:

    rounding         what is rounded                     0.9 of 196    0.9 of 1568    used by
    floor_masked     masked  = floor(ratio n)            20 visible    157 visible    VideoMAE, VideoMAE V2
    floor_visible    visible = floor((1 - ratio) n)      19 visible    156 visible    MAE, MAE-ST, Audio-MAE, MGMAE
    ceil_masked      masked  = ceil(ratio n)             19 visible    156 visible    MAGE
    nearest_masked   masked  = max(1, round(ratio n))    20 visible    157 visible    BERT, RetroMAE

nearest_masked rounds halves to the even number, as Python does; at ratio 0 it masks nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor
from typing import Literal, get_args

from .draw import Draw

Rounding = Literal["floor_masked", "floor_visible", "ceil_masked", "nearest_masked"]


class Law(ABC):
    """How much of a sample is hidden. Laws are frozen dataclasses; laws.py has those of the papers."""

    __slots__ = ()

    @property
    def needs_progress(self) -> bool:
        """Whether the ratio changes over the run, so that the run's length has to be known."""
        return False

    @abstractmethod
    def draw(self, draw: Draw) -> float:
        """The masked ratio in [0, 1] of one view of a sample."""

    def per_frame(self, draw: Draw, frames: int) -> list[float]:
        """The ratio of each of `frames` frames; they differ where the law draws frame by frame."""
        return [self.draw(draw)] * frames

    def visible(self, draw: Draw, n: int, rounding: Rounding) -> int:
        """How many of `n` tokens stay visible."""
        return visible_count(n, self.draw(draw), rounding)

    def visible_per_frame(self, draw: Draw, frames: int, n: int, rounding: Rounding) -> list[int]:
        """How many of each frame's `n` tokens stay visible."""
        return [visible_count(n, ratio, rounding) for ratio in self.per_frame(draw, frames)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fixed(Law):
    """The same ratio for every sample; it takes nothing from the generator."""

    ratio: float

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def draw(self, draw: Draw) -> float:
        return self.ratio


Ratio = float | Law
"""What a pattern accepts as `ratio`: a number means `Fixed`."""


def as_law(ratio: Ratio) -> Law:
    """The law that `ratio` means; ValueError where a number is outside [0, 1]."""
    return ratio if isinstance(ratio, Law) else _fixed(ratio)


@lru_cache(maxsize=256)
def _fixed(ratio: float) -> Fixed:
    return Fixed(ratio=ratio)


def check_ratio(ratio: float, name: str = "a masked ratio") -> None:
    """ValueError unless `ratio` lies in [0, 1]."""
    if not 0 <= ratio <= 1:
        raise ValueError(f"{name} lies in [0, 1], got {ratio}")


def tidy(ratio: float) -> float:
    """A computed ratio, limited to [0, 1] and without the dust of float arithmetic that would cost a token."""
    return min(max(round(ratio, 12), 0.0), 1.0)


def check_rounding(rounding: str) -> None:
    """ValueError unless `rounding` is one of the four."""
    if rounding not in get_args(Rounding):
        raise ValueError(f"rounding is one of {', '.join(get_args(Rounding))}, got {rounding!r}")


@lru_cache(maxsize=1024)
def visible_count(n: int, ratio: float, rounding: Rounding) -> int:
    """How many of `n` tokens stay visible at a masked `ratio`, in exact decimal arithmetic."""
    masked = Fraction(str(ratio)) * n
    if rounding == "floor_masked":
        return n - floor(masked)
    if rounding == "floor_visible":
        return floor(n - masked)
    if rounding == "nearest_masked":
        return n - min(max(round(masked), 1), n) if masked else n
    return n - ceil(masked)
