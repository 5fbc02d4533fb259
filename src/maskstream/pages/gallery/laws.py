"""Laws: how many tokens are hidden, as curves."""

from collections.abc import Callable, Sequence

import numpy as np

from maskstream.pages.figures.card import Card, Curves
from maskstream.pages.figures.chart import Chart, Line
from maskstream.pipelines.masks import LAWS, Cues, Draw, Law, MaskGIT, RatioLaw
from maskstream.pipelines.masks.laws.progress import ProgressLaw
from maskstream.pipelines.stream.rng import Place

from .scheme import CardText, GallerySection, Media

DRAWS = 10_000
BINS = 32
TOKENS = 128
"""The tokens of which a law of counts hides some."""


def cards(media: Media, seed: int) -> list[Card]:
    """A card for each law; laws need no data."""
    draws = [Draw.of(seed, 0, f"sample {i}", 0, Place(step=i), Cues()) for i in range(DRAWS)]
    return [CardText.of(law).card([figure(law.drawn, draws)]) for law in LAWS]


KIND = GallerySection(
    title="Laws",
    words="A law says how many tokens are hidden, and any law goes with any pattern. Laws of progress follow the "
    "position of a batch in the run, so the loader needs the length of the run (steps=). Random laws draw one "
    "number for a view, a sample, a frame or a batch (scope=).",
    missing="",
    needs=(),
    more=cards,
)


def figure(laws: Sequence[tuple[str, Law]], draws: Sequence[Draw]) -> Curves:
    """The ratio by the progress of the run or by a uniform number; for other laws, the distribution of the draws."""
    by_progress = [(name, law.at) for name, law in laws if isinstance(law, ProgressLaw)]
    by_number = [(name, law.at) for name, law in laws if isinstance(law, MaskGIT)]
    if by_progress:
        return draw_curves(by_progress, "% of the run")
    if by_number:
        return draw_curves(by_number, "uniform number, %")
    ((_, law),) = laws
    if isinstance(law, RatioLaw):
        return density([100 * law.draw(draw) for draw in draws], "masked ratio, %", (0.0, 100.0))
    counts = [law.count(TOKENS, draw, "nearest_masked") for draw in draws]
    return density(counts, f"hidden tokens of {TOKENS}", (0.0, float(TOKENS)))


def draw_curves(laws: Sequence[tuple[str, Callable[[float], float]]], x_name: str) -> Curves:
    """The ratio of each law between 0 and 1, and x in percent."""
    x = np.linspace(0.0, 100.0, 101)
    across = 1 if len(laws) == 1 else 4 if len(laws) % 4 == 0 else 3
    items = tuple(
        Chart(
            lines=(Line(x=x, y=np.array([law(float(v) / 100) for v in x])),),
            title=name,
            said=f"{name or 'the law'} by {x_name}",
            include=(0.0,),
        )
        for name, law in laws
    )
    return Curves(items=items, across=across, x_name=x_name, title="Masked ratio")


def density(values: Sequence[float], x_name: str, extent: tuple[float, float]) -> Curves:
    """The distribution of the values, as the share of the draws in each of 32 bins of `extent`."""
    shares, edges = np.histogram(values, bins=BINS, range=extent)
    line = Line(x=(edges[1:] + edges[:-1]) / 2, y=shares / len(values))
    chart = Chart(lines=(line,), said=f"the law by {x_name}", include=(0.0,))
    return Curves(items=(chart,), across=1, x_name=x_name, title="Share of the draws")
