"""Ratio schedules (`RatioSchedule`) determine the number of hidden tokens; a rounding converts a ratio to a count.

The papers' schedules are in `schedules/`. Published code computes counts in floats and rounds in several ways, which
differ by a token. Here the arithmetic is decimal and exact (0.9 is 9/10), and the rounding has a name:

    rounding         rounded quantity                    0.9 of 196    0.9 of 1568    used by
    floor_masked     masked  = floor(ratio n)            20 visible    157 visible    VideoMAE, VideoMAE V2
    floor_visible    visible = floor((1 - ratio) n)      19 visible    156 visible    MAE, MAE-ST, Audio-MAE, MGMAE
    ceil_masked      masked  = ceil(ratio n)             19 visible    156 visible    MAGE
    nearest_masked   masked  = max(1, round(ratio n))    20 visible    157 visible    BERT, RetroMAE
    half_up_masked   masked  = max(1, round(ratio n))    20 visible    157 visible    OneRef (text)

nearest_masked rounds halves to even, as Python does; half_up_masked rounds them up. At ratio 0 both mask nothing.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor
from operator import methodcaller
from typing import Annotated, Literal

from maskstream.shards.config import Config
from maskstream.shards.limits import Proportion, Valid, check_value

from .draw import Draw

Rounding = Literal["floor_masked", "floor_visible", "ceil_masked", "nearest_masked", "half_up_masked"]


class RatioSchedule(Config, ABC):
    """Base class of ratio schedules: how many tokens of a sample are hidden.

    Subclasses are frozen dataclasses and implement `count`. Schedules that draw a ratio subclass `ProportionSchedule`.
    """

    __slots__ = ()

    @property
    def needs_progress(self) -> bool:
        """True if the count changes over the run; the loader then needs the length of the run, `steps`."""
        return False

    def check_ratios(self) -> None:
        """Raise ValueError if the schedule's values are not ratios, so that it can only drive settings other than a
        mask.
        """

    @abstractmethod
    def count(self, n: int, draw: Draw, rounding: Rounding) -> int:
        """Return the number of hidden tokens of one view, 0 to `n`."""

    def counts(self, frames: int, n: int, draw: Draw, rounding: Rounding) -> list[int]:
        """Return the number of hidden tokens in each of `frames` frames of `n` tokens; equal unless drawn per frame."""
        return [self.count(n, draw, rounding)] * frames

    def visible(self, n: int, draw: Draw, rounding: Rounding) -> int:
        """Return the number of visible tokens of one view."""
        return n - self.count(n, draw, rounding)

    def visible_per_frame(self, frames: int, n: int, draw: Draw, rounding: Rounding) -> list[int]:
        """Return the number of visible tokens in each of `frames` frames of `n` tokens."""
        return [n - count for count in self.counts(frames, n, draw, rounding)]


class ProportionSchedule(RatioSchedule):
    """Base class of schedules that draw a ratio; the rounding converts it to a count."""

    __slots__ = ()

    @abstractmethod
    def draw(self, draw: Draw) -> float:
        """Draw the masked ratio in [0, 1] of one view."""

    def per_frame(self, draw: Draw, frames: int) -> list[float]:
        """Draw the ratio of each frame; equal unless drawn per frame."""
        return [self.draw(draw)] * frames

    def count(self, n: int, draw: Draw, rounding: Rounding) -> int:
        return hidden_count(n, self.draw(draw), rounding)

    def counts(self, frames: int, n: int, draw: Draw, rounding: Rounding) -> list[int]:
        return [hidden_count(n, ratio, rounding) for ratio in self.per_frame(draw, frames)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fixed(ProportionSchedule):
    """The same ratio for every sample; draws no random number.

    Attributes:
        ratio: Masked ratio in [0, 1].
    """

    ratio: Proportion

    def draw(self, draw: Draw) -> float:
        return self.ratio


OF_RATIOS = Valid(methodcaller("check_ratios"))
"""Limit of a schedule: its values are ratios from 0 to 1."""
Ratio = Proportion | Annotated[RatioSchedule, OF_RATIOS]
"""Type of a pattern's `ratio`; a number means `Fixed`."""
RatioAlone = Proportion | Annotated[ProportionSchedule, OF_RATIOS]
"""Type of `ratio` for patterns that need the ratio itself, not only a count."""


def as_schedule(ratio: Ratio) -> RatioSchedule:
    """Convert a number to `Fixed` and check a schedule.

    Raises:
        ValueError: `ratio` is neither a ratio schedule nor a number in [0, 1].
    """
    if isinstance(ratio, RatioSchedule):
        ratio.check_ratios()
        return ratio
    if type(ratio) is not float:  # fast path for the most common type
        check_value("ratio", ratio, Ratio, remedy="; such as 0.9 or Uniform(low=0.5, high=1.0)")
    return _fix_ratio(ratio)


def as_proportion_schedule(ratio: Ratio, by: str) -> ProportionSchedule:
    """Convert `ratio` to a schedule of ratios, for patterns that need more than a count.

    Raises:
        ValueError: The schedule draws counts; the message names the pattern `by`.
    """
    schedule = as_schedule(ratio)
    if not isinstance(schedule, ProportionSchedule):
        raise ValueError(
            f"{schedule} draws a number of tokens, but {by} needs a ratio: pass a number or a ratio schedule such as "
            "Uniform, or use a pattern that needs only a count (Random, Tube, Block, PerFrame)"
        )
    return schedule


@lru_cache(maxsize=256)
def _fix_ratio(ratio: float) -> Fixed:
    return Fixed(ratio=ratio)


def check_ratio(ratio: float, name: str = "a masked ratio") -> None:
    """Raise ValueError unless `ratio` lies in [0, 1]."""
    if not 0 <= ratio <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {ratio}")


def tidy(ratio: float) -> float:
    """Clip a computed ratio to [0, 1] and round it to 12 decimals, so that float errors do not change a count."""
    return min(max(round(ratio, 12), 0.0), 1.0)


@lru_cache(maxsize=1024)
def hidden_count(n: int, ratio: float, rounding: Rounding) -> int:
    """Return how many of `n` tokens are hidden at a masked `ratio`, in exact decimal arithmetic."""
    masked = Fraction(str(ratio)) * n
    if rounding == "floor_masked":
        return floor(masked)
    if rounding in ("floor_visible", "ceil_masked"):
        return ceil(masked)
    nearest = round(masked) if rounding == "nearest_masked" else floor(masked + Fraction(1, 2))
    return min(max(nearest, 1), n) if masked else 0


def visible_count(n: int, ratio: float, rounding: Rounding) -> int:
    """Return how many of `n` tokens are visible at a masked `ratio`, in exact decimal arithmetic."""
    return n - hidden_count(n, ratio, rounding)
