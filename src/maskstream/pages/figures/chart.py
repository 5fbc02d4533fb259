"""Line charts, which the script of a page draws with uPlot; ticks at round numbers, and paths of drawings."""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.shards.arrays import Int64s

Series = npt.NDArray[np.float64]

MAX_COLUMNS = 600
_DIGITS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """A label and its position, from 0 to 1 along the axis (left to right, top to bottom)."""

    at: float
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """Values y over increasing x, both float64 (n,); non-finite values break the line.

    Attributes:
        x: Positions.
        y: Values.
        name: Name in the legend.
        hue: Number of the colour; None for the only line of a page.
        thin: Whether the line is faint and behind others.
    """

    x: Series
    y: Series
    name: str = ""
    hue: int | None = None
    thin: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Lines in one chart.

    Attributes:
        lines: The lines.
        title: Title.
        note: Text above the chart.
        said: Description for screen readers.
        include: Values that the y axis covers.
        top: Upper end of the y axis, above which values are cut off.
        reference: Value of a dashed line.
        unit: Unit of y.
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
        """The data for the page's script: at most 1200 points of each line, the extremes of each column."""
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
    """Return values with six digits for JSON, None for non-finite ones."""
    return [float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in values.tolist()]


def _kept(y: Series) -> Int64s:
    """Return the indices of drawn values: all, or the lowest and the highest of each of MAX_COLUMNS columns."""
    every = np.arange(len(y))
    if len(y) <= 2 * MAX_COLUMNS:
        return every
    columns = np.array_split(every, MAX_COLUMNS)
    return np.unique([part[int(of(y[part]))] for part in columns for of in (np.argmin, np.argmax)])


def smoothed(x: Series, y: Series, name: str, window: int, hue: int | None = None) -> tuple[Line, ...]:
    """Return the line of values and, if there are enough, the line of their running mean.

    Args:
        x: Positions.
        y: Values.
        name: Name in the legend.
        window: Number of values in the mean.
        hue: Number of the colour.
    """
    if not 1 < window <= len(y):
        return (Line(x=x, y=y, name=name, hue=hue),)
    mean = f"{name}, mean of {window}".removeprefix(", ")
    return Line(x=x, y=y, name=name, hue=hue, thin=True), Line(
        x=x, y=compute_running_mean(y, window), name=mean, hue=hue
    )


def compute_running_mean(y: Series, window: int) -> Series:
    """Return the mean of the finite values in a window around each value (fewer at the ends); NaN if there are none.

    Args:
        y: Values.
        window: Number of values in the mean.
    """
    finite, ones = np.isfinite(y), np.ones(window)
    total, count = (np.convolve(one, ones, "same") for one in (np.where(finite, y, 0.0), finite.astype(np.float64)))
    return np.where(count > 0.5, total / np.maximum(count, 1), np.nan)


def choose_inner_ticks(low: float, high: float, about: int) -> tuple[Tick, ...]:
    """Return ticks at round numbers from `low` to `high`.

    Args:
        low: Lower end of the axis.
        high: Upper end of the axis.
        about: Approximate number of ticks.
    """
    rough = ((high - low) or abs(high) or 1.0) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(s for s in (1, 2, 2.5, 5, 10) if s * power >= rough * (1 - 1e-9))
    digits = next((d for d in range(5) if abs(round(step, d) - step) < 1e-6 * step), 5)
    places = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return tuple(Tick(at=(n * step - low) / (high - low or 1.0), label=f"{n * step:,.{digits}f}") for n in places)


Floats = npt.NDArray[np.floating[Any]]


def draw_dots(flat: Floats) -> str:
    """Return an SVG path with a dot at each point (n, 2)."""
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in flat.tolist())


def lines(flat: Floats, pairs: npt.NDArray[np.integer[Any]]) -> str:
    """Return an SVG path with a line for each pair of points.

    Args:
        flat: Points (m, 2).
        pairs: Indices of points (n, 2).
    """
    rounded = np.round(flat, 1)
    return "".join(f"M{a:g} {b:g}L{c:g} {d:g}" for (a, b), (c, d) in rounded[pairs].tolist())
