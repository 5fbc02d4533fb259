"""Line charts, which the script of a page draws with uPlot; ticks at round numbers, and paths of drawings."""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Series = npt.NDArray[np.float64]

MAX_COLUMNS = 600
_DIGITS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """A label and its place, from 0 to 1 along the axis (left to right, top to bottom)."""

    at: float
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """Values y over increasing x, both float64 (n,); those that are not finite break the line. hue: the number of its
    colour, None for that of a page's only line. thin: it is drawn faintly, behind others.
    """

    x: Series
    y: Series
    name: str = ""
    hue: int | None = None
    thin: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Lines in one chart. title, note: above it; said: for readers who do not see it. include: values that the y axis
    covers; top: where it ends, so that larger values are outside. reference: a dashed line across. unit: of y.
    """

    lines: tuple[Line, ...]
    title: str = ""
    note: str = ""
    said: str = ""
    include: tuple[float, ...] = ()
    top: float | None = None
    reference: float | None = None
    unit: str = ""

    @property
    def data(self) -> str:
        """What the script of the page reads: of each line at most 1200 points, the extremes of each column."""
        lines = [
            {
                "x": _numbers(line.x[kept]),
                "y": _numbers(line.y[kept]),
                "name": line.name,
                "hue": line.hue,
                "thin": line.thin,
            }
            for line in self.lines
            for kept in [_kept(line.y)]
        ]
        rest = {"include": self.include, "top": self.top, "reference": self.reference, "unit": self.unit}
        return json.dumps({"lines": lines, **rest}, allow_nan=False)


def _numbers(values: Series) -> list[float | None]:
    """Values as JSON has them, with six digits."""
    return [float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in values.tolist()]


def _kept(y: Series) -> npt.NDArray[np.int64]:
    """The places of the values that are drawn: all, or the lowest and the highest of each of MAX_COLUMNS columns."""
    every = np.arange(len(y))
    if len(y) <= 2 * MAX_COLUMNS:
        return every
    columns = np.array_split(every, MAX_COLUMNS)
    return np.unique([part[int(of(y[part]))] for part in columns for of in (np.argmin, np.argmax)])


def smoothed(x: Series, y: Series, name: str, window: int, hue: int | None = None) -> tuple[Line, ...]:
    """The values, and over them their mean over `window` of them if there are so many."""
    if not 1 < window <= len(y):
        return (Line(x=x, y=y, name=name, hue=hue),)
    mean = f"{name}, mean of {window}".removeprefix(", ")
    return Line(x=x, y=y, name=name, hue=hue, thin=True), Line(
        x=x, y=compute_running_mean(y, window), name=mean, hue=hue
    )


def compute_running_mean(y: Series, window: int) -> Series:
    """The mean of the finite ones of the `window` values around each (fewer at the ends); NaN where there is none."""
    finite, ones = np.isfinite(y), np.ones(window)
    total, count = (np.convolve(one, ones, "same") for one in (np.where(finite, y, 0.0), finite.astype(np.float64)))
    return np.where(count > 0.5, total / np.maximum(count, 1), np.nan)


def choose_inner_ticks(low: float, high: float, about: int) -> tuple[Tick, ...]:
    """About so many ticks at round numbers from `low` to `high`, none of them outside."""
    rough = ((high - low) or abs(high) or 1.0) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(s for s in (1, 2, 2.5, 5, 10) if s * power >= rough * (1 - 1e-9))
    digits = next((d for d in range(5) if abs(round(step, d) - step) < 1e-6 * step), 5)
    places = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return tuple(Tick(at=(n * step - low) / (high - low or 1.0), label=f"{n * step:,.{digits}f}") for n in places)


Floats = npt.NDArray[np.floating[Any]]


def draw_dots(flat: Floats) -> str:
    """A path with a dot at each of the points (n, 2)."""
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in flat.tolist())


def lines(flat: Floats, pairs: npt.NDArray[np.integer[Any]]) -> str:
    """A path with a line for each of `pairs` (n, 2), numbers of points (m, 2)."""
    rounded = np.round(flat, 1)
    return "".join(f"M{a:g} {b:g}L{c:g} {d:g}" for (a, b), (c, d) in rounded[pairs].tolist())
