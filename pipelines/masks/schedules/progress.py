"""Ratio schedules over the run: the ratio is a function of progress, equal for all samples of a batch.

Progress is `Draw.place.progress`, from 0 at the first batch to 1 at the last. It follows from the batch number and the
length of the run, the loader's `steps`. `at(progress)` returns the ratio.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi, sqrt
from operator import itemgetter
from typing import Annotated, Literal, get_args

from maskstream.pipelines.masks.core import Draw, PaperSchedule, ProportionSchedule, check_ratio, tidy
from maskstream.pipelines.stream.shares import Schedule
from maskstream.shards.limits import FILLED, Bounds, FiniteFloat, PositiveProportion, Proportion


class ProgressSchedule(Schedule, ProportionSchedule):
    """Base class of schedules over the run. Other settings, such as mixture weights and sizes, may also follow them."""

    __slots__ = ()

    @property
    def needs_progress(self) -> bool:
        return True

    def draw(self, draw: Draw) -> float:
        return tidy(self.at(draw.place.progress))


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear(ProgressSchedule):
    """Interpolate linearly from `start` at the first batch to `end` at the last.

    The defaults approximate the curriculum of DiffMAViL (Nunez et al. 2023): the paper states that the ratio falls, but
    its end points are not in published code.

    Attributes:
        start: Value at the first batch; in a mask, a ratio in [0, 1].
        end: Value at the last batch.
    """

    start: FiniteFloat = 0.9
    end: FiniteFloat = 0.8

    def check_ratios(self) -> None:
        check_ratio(self.start, "the ratio at the start")
        check_ratio(self.end, "the ratio at the end")

    def at(self, progress: float) -> float:
        return self.start * (1 - progress) + self.end * progress


Shape = Literal["cosine", "descending", "ascending", "square_above", "square_below", "triangle", "v", "warmup_decay"]

SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda s: 1 + cos(pi * s),
    "descending": lambda s: 2 * (1 - s),
    "ascending": lambda s: 2 * s,
    "square_above": lambda s: 2 * (1 - s * s),
    "square_below": lambda s: 2 * (1 - s) ** 2,
    "triangle": lambda s: 4 * min(s, 1 - s),
    "v": lambda s: 2 * abs(1 - 2 * s),
}
"""Factor of the mean ratio at progress s. "warmup_decay" has one more setting and is not listed."""

OFFSETS = {"cosine": 0.02, "square_above": 0.01, "v": 0.01}
"""Published offsets, added to the ratio."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RatioDecay(ProgressSchedule):
    """Schedules of Learning Better Masking (Yang et al. 2023, masking ratio decay and its ablations).

    With p = `ratio` and s = progress, and clipped to [0, 1], the shapes are:

    - "cosine": p (1 + cos(pi s)) + 0.02
    - "descending": 2 p (1 - s)
    - "ascending": 2 p s
    - "square_above": 2 p (1 - s^2) + 0.01
    - "square_below": 2 p (1 - s)^2
    - "triangle": up to 2 p at half the run and back
    - "v": from 2 p to 0 at half the run and back, + 0.01
    - "warmup_decay": up to 2 p at s = `warmup`, then down to 0

    Attributes:
        shape: Shape of the curve.
        ratio: Mean ratio p.
        warmup: Peak of "warmup_decay" as a fraction of the run. Published: 80,000 of 200,000 steps.
    """

    shape: Shape = "cosine"
    ratio: Proportion = 0.15
    warmup: Annotated[float, Bounds(above=0, below=1)] = 0.4

    def at(self, progress: float) -> float:
        return tidy(self.ratio * self._factor(progress) + OFFSETS.get(self.shape, 0.0))

    def _factor(self, s: float) -> float:
        if self.shape != "warmup_decay":
            return SHAPES[self.shape](s)
        return 2 * s / self.warmup if s < self.warmup else 2 * (1 - s) / (1 - self.warmup)


@dataclass(frozen=True, kw_only=True, slots=True)
class SquaredCosine(ProgressSchedule):
    """Follow a squared cosine from `start` to `end`, reached at progress `hold`; constant afterwards.

    f(x) = cos^2(pi / 2 (x + 0.008) / 1.008) / f(0), x = progress / hold; the ratio is start + (end - start) (1 - f).
    The defaults are from LMD (Ma et al. 2023, latent masking diffusion), whose released code uses this ramp.

    Attributes:
        start: Ratio at the first batch.
        end: Ratio from progress `hold` on.
        hold: Progress from which the ratio is constant, in (0, 1].
    """

    start: Proportion = 0.15
    end: Proportion = 0.75
    hold: PositiveProportion = 2 / 3

    def at(self, progress: float) -> float:
        left = _compute_squared_cosine(min(progress / self.hold, 1.0)) / _compute_squared_cosine(0.0)
        return self.start * left + self.end * (1 - left)


def _compute_squared_cosine(x: float) -> float:
    return cos((x + 0.008) / 1.008 * pi / 2) ** 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Piecewise(ProgressSchedule):
    """Interpolate linearly between points, constant before the first and after the last.

    The defaults are LMD's second schedule: up to 0.4 in the first sixth of the run, constant until a third, up to 0.75
    at two thirds. (In the released code, where it is commented out, the second ramp overshoots.)

    Attributes:
        points: Pairs (progress, value) with rising progress; two points with the same progress form a jump. In a mask,
            values are ratios; other settings may use any numbers.
    """

    points: Annotated[tuple[tuple[Proportion, FiniteFloat], ...], FILLED] = (
        (0.0, 0.15),
        (1 / 6, 0.4),
        (1 / 3, 0.4),
        (2 / 3, 0.75),
    )

    def validate(self) -> None:
        places = [place for place, _ in self.points]
        if not places or any(b < a for a, b in pairwise(places)):
            raise ValueError(f"points must be (progress, ratio) pairs with increasing progress, got {self.points}")

    @property
    def points_of_change(self) -> tuple[float, ...]:
        return tuple(place for place, _ in self.points)

    def check_ratios(self) -> None:
        for _, ratio in self.points:
            check_ratio(ratio)

    def at(self, progress: float) -> float:
        behind = bisect_right(self.points, progress, key=itemgetter(0))
        if behind in (0, len(self.points)):
            return float(self.points[max(behind - 1, 0)][1])
        (left, low), (right, high) = self.points[behind - 1 : behind + 1]
        return (high - low) / (right - left) * (progress - left) + low


@dataclass(frozen=True, kw_only=True, slots=True)
class SquareRoot(ProgressSchedule):
    """Follow min(1, sqrt(s (1 - c^2)) + c^2) at progress s, with c = `start`: it rises quickly at first and ends at 1.

    A-JEPA (Fei et al., 2023) selects its harder mask with this probability, with c = 0.01. In the curve's original
    paper (Platanios et al., 2019, competence-based curriculum learning), c^2 is under the root, so that c is the value
    at the start.

    Attributes:
        start: Parameter c in [0, 1]; the curve starts at c^2.
    """

    start: Proportion = 0.01

    def at(self, progress: float) -> float:
        return min(1.0, sqrt(progress * (1 - self.start**2)) + self.start**2)


SCHEDULES = (
    PaperSchedule(
        schedule=Linear(),
        paper="DiffMAViL",
        section="masking ratio curriculum",
        title="Linear",
        note="Follows a straight line over the run.",
    ),
    PaperSchedule(
        schedule=RatioDecay(),
        paper="Learning Better Masking",
        section="ratio decay",
        title="Ratio schedules",
        note="Eight shapes over the run (`shape=`), all with a mean ratio of 15 %.",
        curves=tuple((shape.replace("_", " "), RatioDecay(shape=shape)) for shape in get_args(Shape)),
    ),
    PaperSchedule(
        schedule=SquaredCosine(),
        paper="LMD",
        section="masking schedulers",
        title="Squared cosine",
        note="Rises until two thirds of the run and then stays constant.",
    ),
    PaperSchedule(
        schedule=Piecewise(),
        paper="LMD",
        section="its second schedule",
        title="Piecewise",
        note="Follows straight lines between points (`points=`).",
    ),
    PaperSchedule(
        schedule=SquareRoot(),
        paper="A-JEPA",
        section="curriculum masking",
        title="Square root",
        note="Rises fast at first, to 1 at the end: the probability of the harder mask of `masks.Curriculum`.",
    ),
)
