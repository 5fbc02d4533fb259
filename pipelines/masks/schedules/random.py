"""Random ratio schedules: a ratio or count drawn per view, sample, frame or batch.

`scope` determines which draws share one number. With "view", each view has its own. With "sample", all views of a
sample share one. With "batch", a batch over all ranks shares one, so that its samples have equal counts. With "frame",
each frame has its own, in patterns that count per frame (`PerFrame`, `Block`). Two schedules with the same `name` and a
scope of "sample" or "batch" draw the same number; give the masks of two modalities different names to make them
independent.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import cos, log2, pi
from statistics import NormalDist
from typing import Annotated, Literal, get_args

import numpy as np

from maskstream.pipelines.masks.core import (
    Draw,
    PaperSchedule,
    ProportionSchedule,
    RatioSchedule,
    Rounding,
    Scope,
    tidy,
)
from maskstream.shards.limits import FILLED, Bounds, NaturalInt, PositiveFloat, PositiveInt, Proportion


@dataclass(frozen=True, kw_only=True, slots=True)
class ScopedSchedule(RatioSchedule):
    """Base class of random ratio schedules.

    Attributes:
        scope: Unit that shares one number: "view", "sample", "batch" or "frame".
        name: Name of the random number; schedules with different names are independent.
    """

    scope: Scope = "view"
    name: str = "ratio"

    def generator(self, draw: Draw) -> np.random.Generator:
        """Return the generator of the shared number.

        Raises:
            ValueError: The scope is a frame.
        """
        if self.scope == "frame":
            raise ValueError(
                f"{self} draws a ratio for each frame, but the pattern counts over the full view; use a "
                "pattern that counts per frame (PerFrame, Block), or a scope of view, sample or batch"
            )
        return draw.generator(self.scope, f"law {self.name}")  # the word is part of the seed


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomSchedule(ScopedSchedule, ProportionSchedule):
    """Base class of schedules that draw a ratio from one generator."""

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> float:
        """Draw a ratio in [0, 1]."""

    def draw(self, draw: Draw) -> float:
        return tidy(self.sample(self.generator(draw)))

    def per_frame(self, draw: Draw, frames: int) -> list[float]:
        if self.scope != "frame":
            return [self.draw(draw)] * frames
        return [tidy(self.sample(draw.rng)) for _ in range(frames)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Uniform(RandomSchedule):
    """Draw uniformly from [low, high). The defaults are from MaskViT (Gupta et al. 2022, masked visual modelling).

    Attributes:
        low: Lowest ratio.
        high: Highest ratio (exclusive).
    """

    low: float = 0.5
    high: float = 1.0

    def validate(self) -> None:
        check_interval(self.low, self.high)

    def sample(self, rng: np.random.Generator) -> float:
        return self.between(rng.random())

    def between(self, share: float) -> float:
        """Map a fraction in [0, 1) to a ratio between low and high."""
        return self.low + (self.high - self.low) * share


@dataclass(frozen=True, kw_only=True, slots=True)
class Stratified(ProportionSchedule):
    """Draw uniformly from [low, high), stratified over consecutive views or epochs of a sample.

    The interval is divided into `strata` equal parts; successive ratios of a sample fall into successive parts,
    starting at a random one. This reduces the variance of means over them. MDLM (Sahoo et al. 2024) stratifies the
    ratios of a batch; here the ratios of one sample are stratified, so that a draw depends on no other sample.

    Attributes:
        low: Lowest ratio.
        high: Highest ratio (exclusive).
        strata: Number of parts of the interval.
        name: Name of the starting part; schedules with different names start at independent parts.
    """

    low: float = 0.0
    high: float = 1.0
    strata: PositiveInt = 16
    name: str = "ratio"

    def validate(self) -> None:
        check_interval(self.low, self.high)

    def draw(self, draw: Draw) -> float:
        first = replace(draw, epoch=0).generator("sample", f"strata {self.name}").integers(self.strata)
        part = (int(first) + draw.epoch + draw.view) % self.strata
        return tidy(self.low + (self.high - self.low) * (part + draw.rng.random()) / self.strata)


@dataclass(frozen=True, kw_only=True, slots=True)
class UniformCount(ScopedSchedule):
    """Draw the number of hidden tokens uniformly from `low` to `high`. There is no ratio, and the rounding has no
    effect.

    The highest number for n tokens is min(high, max(1, round(share * n)), n); `low` is reduced to it if necessary.
    Source: PMLM (Liao et al. 2020), u-PMLM with a `share` of 1.

    Attributes:
        low: Smallest number of hidden tokens.
        high: Largest number of hidden tokens; None limits it only by `share`.
        share: Largest fraction of tokens that may be hidden.
    """

    low: NaturalInt = 1
    high: int | None = None
    share: Proportion = 1.0

    def validate(self) -> None:
        if self.low < 0 or (self.high is not None and self.high < self.low):
            raise ValueError(f"counts must satisfy 0 <= low <= high, got low={self.low}, high={self.high}")

    def count(self, n: int, draw: Draw, rounding: Rounding) -> int:
        return self._count(n, self.generator(draw))

    def counts(self, frames: int, n: int, draw: Draw, rounding: Rounding) -> list[int]:
        if self.scope != "frame":
            return [self.count(n, draw, rounding)] * frames
        return [self._count(n, draw.rng) for _ in range(frames)]

    def _count(self, n: int, rng: np.random.Generator) -> int:
        most = min(max(1, round(Fraction(str(self.share)) * n)), n)
        most = most if self.high is None else min(self.high, most)
        return int(rng.integers(min(self.low, most), most + 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class TruncatedNormal(RandomSchedule):
    """Draw from a normal distribution truncated to [low, high], by inverting its distribution function.

    The defaults are from MAGE (Li et al. 2023, sec. 3.1), which draws one number per batch: scope="batch".

    Attributes:
        mean: Mean of the untruncated normal.
        std: Standard deviation of the untruncated normal.
        low: Lowest ratio.
        high: Highest ratio.
    """

    mean: float = 0.55
    std: PositiveFloat = 0.25
    low: float = 0.5
    high: float = 1.0

    def validate(self) -> None:
        check_interval(self.low, self.high)
        below, above = self._ends()
        if above - below < 1e-6:
            raise ValueError(
                f"less than a millionth of a normal distribution with mean {self.mean} and std {self.std} "
                f"lies in [{self.low}, {self.high}]: move the mean, widen std, or use Uniform"
            )

    def sample(self, rng: np.random.Generator) -> float:
        below, above = self._ends()
        place = below + (above - below) * rng.random()
        drawn = NormalDist(self.mean, self.std).inv_cdf(min(max(place, 1e-300), 1 - 1e-16))
        return min(max(drawn, self.low), self.high)

    def _ends(self) -> tuple[float, float]:
        """Probability of the untruncated normal below `low` and below `high`."""
        return _ends(self.mean, self.std, self.low, self.high)


@lru_cache(maxsize=64)
def _ends(mean: float, std: float, low: float, high: float) -> tuple[float, float]:
    normal = NormalDist(mean, std)
    return normal.cdf(low), normal.cdf(high)


Curve = Literal["cosine", "uniform", "power", "log", "exp"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskGIT(RandomSchedule):
    """Draw a uniform r in [0, 1) and return a decreasing function of it, clipped to [1e-6, 1].

    The curves are: "cosine", cos(pi r / 2); "uniform", 1 - r; "power", 1 - r ** power; "log", -log2(r) / log2(tokens);
    "exp", 1 - 2 ** (-log2(tokens) (1 - r)). Source: MaskGIT (Chang et al. 2022, sec. 3.3), 16 x 16 tokens.

    Attributes:
        curve: Shape of the function.
        power: Exponent of "power".
        tokens: Number of tokens in "log" and "exp".
    """

    curve: Curve = "cosine"
    power: PositiveFloat = 2.0
    tokens: Annotated[int, Bounds(min=2)] = 256

    def sample(self, rng: np.random.Generator) -> float:
        return self.at(rng.random())

    def at(self, r: float) -> float:
        """Return the ratio for a number r in [0, 1]."""
        if self.curve == "cosine":
            ratio = cos(pi / 2 * r)
        elif self.curve == "uniform":
            ratio = 1 - r
        elif self.curve == "power":
            ratio = 1 - r**self.power
        elif self.curve == "log":
            ratio = 1.0 if r == 0 else -log2(r) / log2(self.tokens)
        else:
            ratio = 1 - 2 ** (-log2(self.tokens) * (1 - r))
        return min(max(ratio, 1e-6), 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiRatio(ProportionSchedule):
    """Assign one of several ratios to each sample, in equal parts of a batch.

    Samples of a batch over all ranks are assigned in random order, so that the numbers of samples per ratio differ by
    at most one; the ratios with an extra sample are random, so over a run all ratios are equally frequent at any batch
    size. All views of a sample have the same ratio. Counts differ between samples (see `Padded`). Source: AVSiam (Lin &
    Bertasius 2024, multi-ratio masking); its code splits a batch with torch.chunk, which skips ratios at most batch
    sizes.

    Attributes:
        ratios: Ratios to distribute.
        name: Name of the assignment; schedules with different names, such as those for two modalities, are independent.
    """

    ratios: Annotated[tuple[Proportion, ...], FILLED] = (0.0, 0.2, 0.4, 0.6, 0.8)
    name: str = "ratio"

    def draw(self, draw: Draw) -> float:
        rng, place = draw.generator("batch", f"parts {self.name}"), draw.place
        turn = int(rng.integers(len(self.ratios)))
        rank = int(np.flatnonzero(rng.permutation(place.rows) == place.row)[0])
        return self.ratios[(rank + turn) % len(self.ratios)]


def check_interval(low: float, high: float) -> None:
    """Raise ValueError unless 0 <= low <= high <= 1."""
    if not 0 <= low <= high <= 1:
        raise ValueError(f"masked ratios must satisfy 0 <= low <= high <= 1, got low={low}, high={high}")


SCHEDULES = (
    PaperSchedule(
        schedule=Uniform(),
        paper="MaskViT",
        section="sec. 3.3",
        title="Uniform",
        note="Every ratio of an interval is equally likely.",
    ),
    PaperSchedule(
        schedule=Stratified(),
        paper="MDLM",
        section="low-discrepancy sampler",
        title="Stratified",
        note="Uniform, but over 16 views or epochs each of a sample's ratios lies in a different sixteenth.",
    ),
    PaperSchedule(
        schedule=UniformCount(),
        paper="PMLM",
        title="Uniform count",
        note="Every number of hidden tokens is equally likely, from one to all.",
    ),
    PaperSchedule(
        schedule=TruncatedNormal(scope="batch"),
        paper="MAGE",
        section="sec. 3.1",
        title="Truncated normal",
        note="A normal distribution, cut off at both ends; all samples of a batch share one ratio.",
    ),
    PaperSchedule(
        schedule=MaskGIT(),
        paper="MaskGIT",
        section="sec. 3.3",
        title="MaskGIT's functions",
        note="A falling function of a uniform random number; `curve=` selects one of five.",
        curves=tuple((curve, MaskGIT(curve=curve)) for curve in get_args(Curve)),
    ),
    PaperSchedule(
        schedule=MultiRatio(),
        paper="AVSiam",
        section="multi-ratio masking",
        title="Several ratios",
        note="Divides a batch equally among several ratios, by default 0, 0.2, 0.4, 0.6 and 0.8.",
    ),
)
