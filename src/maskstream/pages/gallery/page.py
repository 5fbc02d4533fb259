"""The page of all schemes, in sections by the kind of data, and the page of chosen masks on samples of a split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import getdoc
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.modality import NO_MASK, MaskField, Modality
from maskstream.pages.figures.card import Card, Curves, Section
from maskstream.pages.figures.chart import Chart, Line
from maskstream.pages.figures.figures import MaskRow, mask_facts
from maskstream.pages.page import page, write_page
from maskstream.pages.preview import first_batch
from maskstream.pipelines.masks import (
    SCHEDULES,
    SCHEMES,
    Cues,
    Draw,
    Mask,
    MaskGIT,
    ProportionSchedule,
    RatioSchedule,
)
from maskstream.pipelines.masks.schedules.progress import ProgressSchedule
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.rng import Place
from maskstream.shards.format.manifest import Manifest

from . import solids, text, views
from .scheme import CardText, GallerySection, Media

DRAWS, BINS = 10_000, 32
TOKENS = 128
"""Number of tokens from which samplers of counts hide some."""


def _draw_schedules(media: Media, seed: int) -> list[Card]:
    """Draw each ratio sampler or schedule; they need no data."""
    draws = [Draw.of(seed, 0, f"sample {i}", 0, Place(step=i), Cues()) for i in range(DRAWS)]
    return [CardText.of(schedule).card([draw_schedule(schedule.drawn, draws)]) for schedule in SCHEDULES]


def draw_schedule(schedules: Sequence[tuple[str, RatioSchedule]], draws: Sequence[Draw]) -> Curves:
    """Draw the ratio by progress of the run or by a uniform number or, for other samplers, the distribution of draws.

    Args:
        schedules: Samplers by name.
        draws: Random draws.
    """
    for kind, x_name in ((ProgressSchedule, "% of the run"), (MaskGIT, "uniform number, %")):
        if curves := [(name, schedule.at) for name, schedule in schedules if isinstance(schedule, kind)]:
            return draw_curves(curves, x_name)
    ((_, schedule),) = schedules
    if isinstance(schedule, ProportionSchedule):
        return draw_density([100 * schedule.draw(draw) for draw in draws], "masked ratio, %", 100.0)
    counts = [schedule.count(TOKENS, draw, "nearest_masked") for draw in draws]
    return draw_density(counts, f"hidden tokens of {TOKENS}", float(TOKENS))


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


def draw_density(values: Sequence[float], x_name: str, end: float) -> Curves:
    """Draw the distribution of values from 0 to `end`, as the fraction of draws in each of 32 bins.

    Args:
        values: The values.
        x_name: Label of the x axis.
        end: End of the bins.
    """
    shares, edges = np.histogram(values, bins=BINS, range=(0.0, end))
    line = Line(x=(edges[1:] + edges[:-1]) / 2, y=shares / len(values))
    chart = Chart(lines=(line,), said=f"the distribution by {x_name}", include=(0.0,))
    return Curves(items=(chart,), across=1, x_name=x_name, title="Fraction of draws")


KINDS = (
    views.VIDEO,
    views.IMAGES,
    views.SOUND,
    solids.CLOUDS,
    solids.SKELETONS,
    text.TEXT,
    text.PAIRS,
    GallerySection(
        title="Ratios and schedules",
        words="A ratio sampler determines how many tokens are hidden, and can be combined with any pattern. Schedules "
        "follow the position of a batch in the run, so the loader needs the length of the run (steps=). Random "
        "samplers draw one number per view, sample, frame or batch (scope=).",
        more=_draw_schedules,
    ),
)
MISSING = "These media could not be downloaded. Run the command again with a network connection."


def list_gallery_sections(media: Media, seed: int = 0) -> list[Section]:
    """Return the sections with their cards.

    Args:
        media: The sample media.
        seed: Seed of the masks.
    """
    return [kind.section(media, seed) for kind in KINDS]


def gallery_page(media: Media, *, missing: Mapping[str, str] | None = None, seed: int = 0) -> str:
    """Return one self-contained HTML file with an image of every scheme, as drawn by a loader.

    Args:
        media: The sample media.
        missing: Reason for each missing medium, by name.
        seed: Seed of the loader.
    """
    sections = list_gallery_sections(media, seed)
    n = sum(len(section.cards) for section in sections)
    if missing:
        sections.append(Section(title="Missing media", words=MISSING, numbers=tuple(missing.items())))
    return page(
        kind="gallery",
        title="Masks of the papers",
        lede=(
            f"{n} masking schemes and ratio samplers on real data, each drawn by the loader's code. A scheme combines "
            "a pattern, which determines the hidden tokens, with a ratio sampler, which determines their number."
        ),
        facts={},
        sections=sections,
        by_section=True,
    )


def gallery(media: Media, out: str | Path, *, missing: Mapping[str, str] | None = None, seed: int = 0) -> Path:
    """Write `gallery_page` and return its path.

    Args:
        media: The sample media.
        out: HTML file.
        missing: Reason for each missing medium, by name.
        seed: Seed of the loader.
    """
    return write_page(gallery_page(media, missing=missing, seed=seed), Path(out))


def own_gallery(
    modality: Modality,
    manifest: Manifest,
    masks: Sequence[str],
    out: str | Path,
    *,
    settings: Sequence[str] = (),
    samples: int = 4,
    seed: int = 0,
) -> Path:
    """Write the gallery of some masks by name, on the first samples of a training epoch, followed by published masks
    that fit the same tokens.

    Args:
        modality: Modality of the split.
        manifest: The split.
        masks: Names of masks, as in `Modality.chosen`.
        out: HTML file.
        settings: Settings of the data config, such as "size=112".
        samples: Number of samples.
        seed: Seed of the loader.

    Returns:
        The path of the page.

    Raises:
        ValueError: A mask does not fit, or the split has no samples.
    """
    sections: list[Section] = []

    def add(title: str, words: str, field: MaskField, names: Sequence[str], count: int) -> None:
        cards = [
            card
            for name in names
            for card in _draw_mask(modality, manifest, settings, field.name, name, samples=count, seed=seed)
        ]
        title += f" ({field.name})" if len(modality.masks) > 1 else ""
        sections.append(Section(title=title, words=words, cards=tuple(cards), layout="columns"))

    for field in modality.masks:
        if names := [one.rpartition("=")[2] for one in masks if modality.field_of(one) is field]:
            add("Chosen masks", "On samples from your split.", field, names, samples)
            others = [name for name in field.legal() if name != NO_MASK and name not in names]
            words = "Other masks that fit these tokens, on the first of these samples."
            add("Masks of papers", words, field, others, 1)
    info = manifest.info
    html = page(
        kind="gallery",
        title=f"Masks on {info['dataset']}/{info['split']}",
        lede=f"{', '.join(masks)} on {modality.units} as a loader with the seed {seed} passes them to training.",
        facts={"location": manifest.location, "samples": f"{len(manifest):,}"},
        sections=sections,
        by_section=True,
    )
    return write_page(html, out)


def _draw_mask(
    modality: Modality,
    manifest: Manifest,
    settings: Sequence[str],
    field: str,
    name: str,
    *,
    samples: int,
    seed: int,
) -> list[Card]:
    """Draw a card of each sample with a mask; a clip as one frame per time step."""
    data = modality.chosen(settings, [f"{field}={name}"])
    if not isinstance(data, VideoData):  # pages of video show flow, which needs a whole page
        data = modality.shown(manifest, settings, [f"{field}={name}"])
    batch: Any = first_batch(data, manifest, samples, seed)
    text, figures, cards = _describe(name, getattr(data, field)), modality.figures(data, manifest), []
    drawn = getattr(batch, field, None)  # poses have a mask for each of their parts
    for row in range(len(batch)):
        facts = () if drawn is None else mask_facts(MaskRow.of(drawn, row))
        if drawn is not None and drawn.grid.axes == ("t", "h", "w"):
            shown = views.paint_clip(batch.video[row].numpy(), drawn.rows(slice(row, row + 1)), "")
        else:
            shown = figures.sample(batch, row).figures
        card = text.card(shown, facts)
        cards.append(replace(card, words=f"{text.source}, on {batch.key[row]}", key=f"{card.key} {batch.key[row]}"))
    return cards


def _describe(name: str, mask: Mask | None) -> CardText:
    """Return the text of a mask's card: of its scheme, or of a custom class."""
    for scheme in SCHEMES:
        if scheme.name == name:
            return CardText.of(scheme)
    about = " ".join((getdoc(type(mask)) or "").split("\n\n")[0].split())
    return CardText(title=type(mask).__name__, source=name.partition(":")[0], note=about, call=repr(mask), name=name)
