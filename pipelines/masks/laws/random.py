"""Random laws: the ratio or the count is drawn for a view, for all views of a sample, for a frame, or for a batch.

`scope` says what shares one number. "view": each view has its own. "sample": all views of a sample share one. "batch":
a batch over all ranks shares one, so that its samples have equal counts. "frame": each frame has its own, in patterns
that count for each frame (`PerFrame`, `Block`). Two laws with one `name` and a scope of "sample" or "batch" draw the
same number, so masks of two modalities need laws of two names to be independent.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import cos, log2, pi
from statistics import NormalDist
from typing import Literal, get_args

import numpy as np

from maskstream.pipelines.masks.core import (
    Draw,
    Law,
    PaperLaw,
    RatioLaw,
    Rounding,
    Scope,
    check_ratio,
    check_scope,
    tidy,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScopedLaw(Law):
    """The base of random laws. `scope` says what shares one number; laws of two names draw independent numbers."""

    scope: Scope = "view"
    name: str = "ratio"

    def __post_init__(self) -> None:
        check_scope(self.scope)
        self.check()

    def check(self) -> None:
        """ValueError for a setting that is not legal."""

    def generator(self, draw: Draw) -> np.random.Generator:
        """The generator of the law's number; ValueError where the scope is a frame."""
        if self.scope == "frame":
            raise ValueError(
                f"{self} draws a ratio for each frame, and the pattern counts over the whole view; use a pattern that "
                "counts for each frame (PerFrame, Block), or a scope of view, sample or batch"
            )
        return draw.generator(self.scope, f"law {self.name}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomLaw(ScopedLaw, RatioLaw):
    """The base of laws that draw a ratio from one generator."""

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> float:
        """A ratio in [0, 1]."""

    def draw(self, draw: Draw) -> float:
        return tidy(self.sample(self.generator(draw)))

    def per_frame(self, draw: Draw, frames: int) -> list[float]:
        if self.scope != "frame":
            return [self.draw(draw)] * frames
        return [tidy(self.sample(draw.rng)) for _ in range(frames)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Uniform(RandomLaw):
    """Uniform in [low, high). The defaults are those of MaskViT (Gupta et al. 2022, masked visual modelling)."""

    low: float = 0.5
    high: float = 1.0

    def check(self) -> None:
        check_interval(self.low, self.high)

    def sample(self, rng: np.random.Generator) -> float:
        return self.between(rng.random())

    def between(self, share: float) -> float:
        """The ratio at a share, in [0, 1), of the way from low to high."""
        return self.low + (self.high - self.low) * share


@dataclass(frozen=True, kw_only=True, slots=True)
class Stratified(RatioLaw):
    """Uniform in [low, high) too, and even over `strata` views or epochs in a row: each of a sample's ratios lies in
    another of so many equal parts of the interval, the first in a random one.

    So means over them vary less. MDLM (Sahoo et al. 2024) spreads the ratios of a batch in this way; here they are
    those of a sample, so that a draw depends on no other sample. Laws of two names begin at independent parts.
    """

    low: float = 0.0
    high: float = 1.0
    strata: int = 16
    name: str = "ratio"

    def __post_init__(self) -> None:
        check_interval(self.low, self.high)
        if self.strata < 1:
            raise ValueError(f"strata is a number of parts, 1 or more, got {self.strata}")

    def draw(self, draw: Draw) -> float:
        first = replace(draw, epoch=0).generator("sample", f"strata {self.name}").integers(self.strata)
        part = (int(first) + draw.epoch + draw.view) % self.strata
        return tidy(self.low + (self.high - self.low) * (part + draw.rng.random()) / self.strata)


@dataclass(frozen=True, kw_only=True, slots=True)
class UniformCount(ScopedLaw):
    """A uniform number of hidden tokens, from `low` to `high`. It has no ratio, and the rounding has no effect.

    The highest number is min(high, max(1, round(share * n)), n) of n tokens, and the lowest is at most that. `high`
    None leaves the share as the only bound. Source: PMLM (Liao et al. 2020), u-PMLM with a `share` of 1.
    """

    low: int = 1
    high: int | None = None
    share: float = 1.0

    def check(self) -> None:
        check_ratio(self.share, "the share of tokens that may be hidden")
        if self.low < 0 or (self.high is not None and self.high < self.low):
            raise ValueError(f"a count lies in 0 <= low <= high, got low={self.low}, high={self.high}")

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
class TruncatedNormal(RandomLaw):
    """A normal of `mean` and standard deviation `std`, truncated to [low, high]; drawn by inverting its distribution.

    The defaults are MAGE's (Li et al. 2023, sec. 3.1), where one number is drawn for a batch: scope="batch".
    """

    mean: float = 0.55
    std: float = 0.25
    low: float = 0.5
    high: float = 1.0

    def check(self) -> None:
        check_interval(self.low, self.high)
        if self.std <= 0:
            raise ValueError(f"std is a standard deviation above 0, got {self.std}")
        below, above = self._ends()
        if above - below < 1e-6:
            raise ValueError(
                f"less than a millionth of a normal of mean {self.mean} and std {self.std} lies in [{self.low}, "
                f"{self.high}]: move the mean, widen std, or use Uniform"
            )

    def sample(self, rng: np.random.Generator) -> float:
        below, above = self._ends()
        place = below + (above - below) * rng.random()
        drawn = NormalDist(self.mean, self.std).inv_cdf(min(max(place, 1e-300), 1 - 1e-16))
        return min(max(drawn, self.low), self.high)

    def _ends(self) -> tuple[float, float]:
        """The share of the untruncated normal below `low`, and below `high`."""
        return _ends(self.mean, self.std, self.low, self.high)


@lru_cache(maxsize=64)
def _ends(mean: float, std: float, low: float, high: float) -> tuple[float, float]:
    normal = NormalDist(mean, std)
    return normal.cdf(low), normal.cdf(high)


Curve = Literal["cosine", "uniform", "power", "log", "exp"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskGIT(RandomLaw):
    """A decreasing function of a uniform number r in [0, 1), clipped to [1e-6, 1].

    curve: "cosine", cos(pi r / 2); "uniform", 1 - r; "power", 1 - r ** power; "log", -log2(r) / log2(tokens); "exp",
    1 - 2 ** (-log2(tokens) (1 - r)). `tokens` counts only in the last two. Source: MaskGIT (Chang et al. 2022, sec.
    3.3), 16 x 16 tokens.
    """

    curve: Curve = "cosine"
    power: float = 2.0
    tokens: int = 256

    def check(self) -> None:
        if self.curve not in get_args(Curve):
            raise ValueError(f"curve is one of {', '.join(get_args(Curve))}, got {self.curve!r}")
        if self.power <= 0:
            raise ValueError(f"power is above 0, got {self.power}")
        if self.tokens < 2:
            raise ValueError(f"tokens is the number of tokens of a sample, 2 or more, got {self.tokens}")

    def sample(self, rng: np.random.Generator) -> float:
        return self.at(rng.random())

    def at(self, r: float) -> float:
        """The ratio at the number r in [0, 1]."""
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
class MultiRatio(RatioLaw):
    """One of several ratios for each sample, in equal parts of a batch: their numbers of samples differ by at most one.

    The samples of a batch over all ranks are dealt to the ratios in a random order, and all views of a sample have one
    ratio. Which ratios get one sample more is random, so over a run all ratios are equally frequent at any batch size.
    Laws of two names deal independently, for two modalities. Samples of a batch have different counts (see `Padded`).
    Source: AVSiam (Lin & Bertasius 2024, multi-ratio masking); its code cuts a batch with torch.chunk, which leaves
    ratios out at most sizes.
    """

    ratios: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)
    name: str = "ratio"

    def __post_init__(self) -> None:
        if not self.ratios:
            raise ValueError("ratios is at least one ratio, got none")
        for ratio in self.ratios:
            check_ratio(ratio)

    def draw(self, draw: Draw) -> float:
        rng, place = draw.generator("batch", f"parts {self.name}"), draw.place
        turn = int(rng.integers(len(self.ratios)))
        rank = int(np.flatnonzero(rng.permutation(place.rows) == place.row)[0])
        return self.ratios[(rank + turn) % len(self.ratios)]


def check_interval(low: float, high: float) -> None:
    """ValueError unless 0 <= low <= high <= 1."""
    if not 0 <= low <= high <= 1:
        raise ValueError(f"masked ratios lie in 0 <= low <= high <= 1, got low={low}, high={high}")


LAWS = (
    PaperLaw(
        law=Uniform(),
        paper="MaskViT",
        section="sec. 3.3",
        title="Uniform",
        note="Every ratio of an interval is equally likely.",
    ),
    PaperLaw(
        law=Stratified(),
        paper="MDLM",
        section="low-discrepancy sampler",
        title="Stratified",
        note="Uniform too; over 16 views or epochs, each of a sample's ratios lies in another sixteenth.",
    ),
    PaperLaw(
        law=UniformCount(),
        paper="PMLM",
        title="Uniform count",
        note="Every number of hidden tokens is equally likely, from one token to all of them.",
    ),
    PaperLaw(
        law=TruncatedNormal(scope="batch"),
        paper="MAGE",
        section="sec. 3.1",
        title="Truncated normal",
        note="A normal distribution of the ratio, cut off at both ends; all samples of a batch share one ratio.",
    ),
    PaperLaw(
        law=MaskGIT(),
        paper="MaskGIT",
        section="sec. 3.3",
        title="MaskGIT's functions",
        note="The ratio is a falling function of a uniform random number; `curve=` chooses one of five.",
        curves=tuple((curve, MaskGIT(curve=curve)) for curve in get_args(Curve)),
    ),
    PaperLaw(
        law=MultiRatio(),
        paper="AVSiam",
        section="multi-ratio masking",
        title="Several ratios",
        note="The samples of a batch are divided equally among several ratios, by default 0, 0.2, 0.4, 0.6 and 0.8.",
    ),
)
