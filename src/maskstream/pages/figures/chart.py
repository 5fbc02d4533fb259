"""Line charts as SVG paths and tick positions; the template puts the text, so that it keeps its size on a phone."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Series = npt.NDArray[np.float64]

UNITS = 1000
"""A chart's paths lie in a square of 1000 x 1000 units, y downwards, that is stretched to the size of the page."""

MAX_COLUMNS = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """A label and its place, from 0 to 1 along the axis (left to right, top to bottom)."""

    at: float
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One chart: `line` is the values, `smooth` their running mean (empty where it was not asked for)."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    line: str
    smooth: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]

    def y_at(self, value: float) -> float:
        """Where `value` lies, from 0 (top) to 1 (bottom)."""
        return _place(value, self.y_range[::-1])


def line_chart(x: Series, y: Series, *, include: Sequence[float] = (), window: int = 0, x_ticks: int = 6) -> Chart:
    """The chart of `y` over increasing whole numbers `x`, both float64 (n,), n >= 1; about `x_ticks` ticks along x.

    The y axis covers the finite values and those of `include`. `window` > 1 adds the mean of so many points around
    each. Values that are not finite break the line. More than 1200 points are drawn as the lowest and highest of each
    column.
    """
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"a chart needs as many x as y values and at least one, got {len(x)} and {len(y)}")
    finite = np.concatenate([y[np.isfinite(y)], np.asarray(include, dtype=np.float64)])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    y_values = axis_ticks(low, high, 4)
    x_range, y_range = (float(x[0]), float(x[-1])), (y_values[0], y_values[-1])
    return Chart(
        x_range=x_range,
        y_range=y_range,
        line=_path(x, y, x_range, y_range),
        smooth=_path(x, running_mean(y, window), x_range, y_range) if 1 < window <= len(y) else "",
        x_ticks=inner_ticks(*x_range, x_ticks, least=1.0),
        y_ticks=_ticks(y_values, y_range[::-1]),
    )


def inner_ticks(low: float, high: float, about: int, *, least: float = 0.0) -> tuple[Tick, ...]:
    """About so many ticks at round numbers from `low` to `high`, `least` apart, none of them outside."""
    inside = [v for v in axis_ticks(low, high, about, least=least) if low <= v <= high]
    return _ticks(inside, (low, high))


def _ticks(values: Sequence[float], extent: tuple[float, float]) -> tuple[Tick, ...]:
    return tuple(Tick(at=_place(v, extent), label=text) for v, text in zip(values, labels(values), strict=True))


def running_mean(y: Series, window: int) -> Series:
    """The mean of the finite ones of the `window` values around each (fewer at the ends); NaN where there is none."""
    finite = np.isfinite(y)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, y, 0.0))])
    counted = np.concatenate([[0], np.cumsum(finite)])
    start = np.maximum(np.arange(len(y)) - (window - 1) // 2, 0)
    stop = np.minimum(np.arange(len(y)) + window // 2 + 1, len(y))
    n = counted[stop] - counted[start]
    return np.where(n > 0, (total[stop] - total[start]) / np.maximum(n, 1), np.nan)


def axis_ticks(low: float, high: float, about: int, *, least: float = 0.0) -> list[float]:
    """About so many round numbers, at least two and `least` apart, from the last <= `low` to the first >= `high`."""
    extent = high - low or abs(high) or 1.0
    rough = max(extent / about, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(s for s in (1, 2, 2.5, 5, 10) if s * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def labels(values: Sequence[float]) -> list[str]:
    """Evenly spaced round numbers as `0.8`, `1.0`, `1,500` or `5e-5`, all in the same form."""
    step = values[1] - values[0] if len(values) > 1 else abs(values[0]) or 1.0
    if step < 1e-3:
        return ["0" if abs(v) < step / 2 else _scientific(v) for v in values]
    digits = next((d for d in range(5) if abs(round(step, d) - step) < 1e-6 * step), 5)
    return [f"{v:,.{digits}f}" for v in values]


def _scientific(value: float) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _path(x: Series, y: Series, x_range: tuple[float, float], y_range: tuple[float, float]) -> str:
    if len(x) > 2 * MAX_COLUMNS:
        x, y = _extremes(x, y)
    px = [_place(v, x_range) * UNITS for v in x.tolist()]
    py = [_place(v, y_range[::-1]) * UNITS for v in y.tolist()]
    return "".join(_pen(px, py))


def _pen(px: list[float], py: list[float]) -> Iterator[str]:
    down = False
    for i, (a, b) in enumerate(zip(px, py, strict=True)):
        if not math.isfinite(b):
            down = False
            continue
        alone = not down and (i + 1 == len(py) or not math.isfinite(py[i + 1]))
        yield f"{'L' if down else 'M'}{a:.1f} {b:.1f}{'h0' if alone else ''}"
        down = True


def _extremes(x: Series, y: Series) -> tuple[Series, Series]:
    """The lowest and the highest finite value of each of MAX_COLUMNS columns, in their order."""
    keep = []
    for part in np.array_split(np.arange(len(x)), MAX_COLUMNS):
        values = np.where(np.isfinite(y[part]), y[part], np.nan)
        if not np.isnan(values).all():
            keep += sorted({int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])})
        else:
            keep.append(int(part[0]))
    return x[keep], y[keep]


def _place(value: float, extent: tuple[float, float]) -> float:
    a, b = extent
    return (value - a) / (b - a) if a != b else 0.5


Floats = npt.NDArray[np.floating[Any]]


def dots(flat: Floats) -> str:
    """A path with a dot at each of the points (n, 2)."""
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in flat.tolist())


def lines(flat: Floats, pairs: npt.NDArray[np.integer[Any]]) -> str:
    """A path with a line for each of `pairs` (n, 2), numbers of points (m, 2)."""
    rounded = np.round(flat, 1)
    return "".join(f"M{a:g} {b:g}L{c:g} {d:g}" for (a, b), (c, d) in rounded[pairs].tolist())
