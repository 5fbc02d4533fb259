"""Ratio samplers and schedules, as curves."""

from collections.abc import Callable, Sequence

import numpy as np

from maskstream.pages.figures.card import Card, Curves
from maskstream.pages.figures.chart import Chart, Line
from maskstream.pipelines.masks import SCHEDULES, Cues, Draw, MaskGIT, ProportionSchedule, RatioSchedule
from maskstream.pipelines.masks.schedules.progress import ProgressSchedule
from maskstream.pipelines.stream.rng import Place

from .scheme import CardText, GallerySection, Media

DRAWS = 10_000
BINS = 32
TOKENS = 128
"""Number of tokens from which samplers of counts hide some."""


def cards(media: Media, seed: int) -> list[Card]:
    """Return a card for each ratio sampler or schedule; they need no data.

    Args:
        media: Not used.
        seed: Seed of the draws.
    """
    draws = [Draw.of(seed, 0, f"sample {i}", 0, Place(step=i), Cues()) for i in range(DRAWS)]
    return [CardText.of(schedule).card([figure(schedule.drawn, draws)]) for schedule in SCHEDULES]


KIND = GallerySection(
    title="Ratios and schedules",
    words="A ratio sampler determines how many tokens are hidden, and can be combined with any pattern. Schedules "
    "follow the position of a batch in the run, so the loader needs the length of the run (steps=). Random "
    "samplers draw one number per view, sample, frame or batch (scope=).",
    missing="",
    needs=(),
    more=cards,
)


def figure(schedules: Sequence[tuple[str, RatioSchedule]], draws: Sequence[Draw]) -> Curves:
    """Draw the ratio by progress of the run or by a uniform number or, for other samplers, the distribution of draws.

    Args:
        schedules: Samplers by name.
        draws: Random draws.
    """
    by_progress = [(name, schedule.at) for name, schedule in schedules if isinstance(schedule, ProgressSchedule)]
    by_number = [(name, schedule.at) for name, schedule in schedules if isinstance(schedule, MaskGIT)]
    if by_progress:
        return draw_curves(by_progress, "% of the run")
    if by_number:
        return draw_curves(by_number, "uniform number, %")
    ((_, schedule),) = schedules
    if isinstance(schedule, ProportionSchedule):
        return density([100 * schedule.draw(draw) for draw in draws], "masked ratio, %", (0.0, 100.0))
    counts = [schedule.count(TOKENS, draw, "nearest_masked") for draw in draws]
    return density(counts, f"hidden tokens of {TOKENS}", (0.0, float(TOKENS)))


def draw_curves(schedules: Sequence[tuple[str, Callable[[float], float]]], x_name: str) -> Curves:
    """Draw the ratio of each function of a number between 0 and 1, with x in percent.

    Args:
        schedules: Functions by name.
        x_name: Label of the x axis.
    """
    x = np.linspace(0.0, 100.0, 101)
    across = 1 if len(schedules) == 1 else 4 if len(schedules) % 4 == 0 else 3
    items = tuple(
        Chart(
            lines=(Line(x=x, y=np.array([schedule(float(v) / 100) for v in x])),),
            title=name,
            said=f"{name or 'the ratio'} by {x_name}",
            include=(0.0,),
        )
        for name, schedule in schedules
    )
    return Curves(items=items, across=across, x_name=x_name, title="Masked ratio")


def density(values: Sequence[float], x_name: str, extent: tuple[float, float]) -> Curves:
    """Draw the distribution of values, as the fraction of draws in each of 32 bins.

    Args:
        values: The values.
        x_name: Label of the x axis.
        extent: Range of the bins.
    """
    shares, edges = np.histogram(values, bins=BINS, range=extent)
    line = Line(x=(edges[1:] + edges[:-1]) / 2, y=shares / len(values))
    chart = Chart(lines=(line,), said=f"the distribution by {x_name}", include=(0.0,))
    return Curves(items=(chart,), across=1, x_name=x_name, title="Fraction of draws")
