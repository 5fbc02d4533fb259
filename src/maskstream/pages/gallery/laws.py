"""Laws: how much is hidden, as curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np

from ...pipelines.masks import (
    Draw,
    Law,
    Linear,
    MaskGIT,
    Piecewise,
    RatioDecay,
    SquaredCosine,
    TruncatedNormal,
    Uniform,
    UniformCount,
)
from ...pipelines.masks.core.scheme import call_of
from ...pipelines.masks.laws.progress import Shape
from ...pipelines.masks.laws.random import Curve as MaskGITCurve
from ..figures.card import Curve, Curves, Figure
from ..figures.chart import line_chart
from .media import Media
from .scheme import Card, Entry, Section

DRAWS = 10_000
BINS = 40
TITLE = "Laws"
LEDE = (
    "How much is hidden: any law goes with any pattern. Laws of progress follow the place of a batch in the run, so "
    "the loader is told its length (steps=); random laws draw for a view, a sample, a frame or a batch (scope=)."
)


def _law(title: str, source: str, note: str, law: Law) -> Entry:
    return Entry(title=title, source=source, note=note, call=call_of(law))


ENTRIES = (
    _law("Linear", "DiffMAViL", "From one ratio to another.", Linear(start=0.9, end=0.8)),
    _law("Ratio decay", "Learning Better Masking", "Eight shapes around a mean of 15 %.", RatioDecay()),
    _law("Squared cosine", "LMD", "A ramp that is done at two thirds of the run.", SquaredCosine()),
    _law("Piecewise", "LMD, its second schedule", "Straight lines between points.", Piecewise()),
    _law("Uniform", "MaskViT", "Every ratio of an interval equally often, by default from 0.5 to 1.", Uniform()),
    _law("Truncated normal", "MAGE", "A bell cut off at both ends, a number a batch.", TruncatedNormal(scope="batch")),
    _law("Uniform count", "PMLM", "A number of tokens, of 128 here, each equally often.", UniformCount()),
    _law("MaskGIT's curves", "MaskGIT, sec. 3.3", "Functions of a uniform number.", MaskGIT()),
)


def section(media: Media, seed: int) -> Section:
    """The cards; laws need no data."""
    panels = panels_by_title(seed)
    cards = tuple(Card(entry=entry, panels=(panels[entry.title],)) for entry in ENTRIES)
    return Section(title=TITLE, lede=LEDE, cards=cards)


def panels_by_title(seed: int) -> dict[str, Figure]:
    """The curves of each law."""
    by_progress = {
        "Linear": [("", Linear().at)],
        "Ratio decay": [(shape, RatioDecay(shape=shape).at) for shape in get_args(Shape)],
        "Squared cosine": [("", SquaredCosine().at)],
        "Piecewise": [("", Piecewise().at)],
    }
    curves: dict[str, Figure] = {
        name: curved(laws, "% of the run", across=4 if len(laws) > 1 else 1) for name, laws in by_progress.items()
    }
    curves["MaskGIT's curves"] = curved(
        [(curve, MaskGIT(curve=curve).at) for curve in get_args(MaskGITCurve)], "uniform number, %", across=3
    )
    curves["Uniform"] = density([100 * Uniform().draw(draw) for draw in draws(seed)], "ratio, %", (0.0, 100.0))
    normal = TruncatedNormal()
    curves["Truncated normal"] = density([100 * normal.draw(draw) for draw in draws(seed)], "ratio, %", (0.0, 100.0))
    counts = [UniformCount().count(128, draw, "nearest_masked") for draw in draws(seed)]
    curves["Uniform count"] = density(counts, "hidden tokens", (0.0, 128.0))
    return curves


def draws(seed: int) -> list[Draw]:
    """Views that share a generator: the gallery needs the distribution, not the keys."""
    rng = np.random.default_rng(seed)
    return [Draw(rng=rng)] * DRAWS


def curved(laws: Sequence[tuple[str, Callable[[float], float]]], x_name: str, *, across: int) -> Curves:
    """Each law between 0 and 1, in percent."""
    x = np.linspace(0.0, 100.0, 101)
    items = tuple(
        Curve(
            title=name.replace("_", " "),
            chart=line_chart(
                x, np.array([law(float(v) / 100) for v in x]), include=(0.0,), x_ticks=5 if across == 1 else 1
            ),
        )
        for name, law in laws
    )
    return Curves(items=items, across=across, x_name=x_name)


def density(values: Sequence[float], x_name: str, extent: tuple[float, float]) -> Curves:
    """How often values occur, as a share of the draws in each of 40 parts of `extent`."""
    shares, edges = np.histogram(values, bins=BINS, range=extent)
    x, y = np.repeat(edges, 2), np.concatenate([[0.0], np.repeat(shares / len(values), 2), [0.0]])
    chart = line_chart(x, y, include=(0.0,))
    return Curves(items=(Curve(title="share of the draws", chart=chart),), across=1, x_name=x_name)
