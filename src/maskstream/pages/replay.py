"""The page of steps of a run: their batches as the model had them, and how their losses stand out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskstream.modality import Modality
from maskstream.pages.figures.card import Card, Section
from maskstream.pages.figures.figures import Figures
from maskstream.pages.figures.words import plural
from maskstream.pages.page import page, write_page
from maskstream.pages.preview import cameras_of
from maskstream.pipelines.modalities.mixture import OpenMixture, RunData, manifests_of
from maskstream.pipelines.stream.batch import Batch
from maskstream.train.core.metrics import StepMetrics
from maskstream.train.core.replay import Replayed


def write_replay(
    modality: Modality,
    run: Path,
    steps: Sequence[Replayed],
    metrics: Mapping[int, StepMetrics],
    out: str | Path,
    *,
    samples: int = 8,
    samples_of: str = "all ranks",
    worst: Sequence[tuple[Replayed, int, float]] = (),
) -> Path:
    """Writes a section for each step, with a card for each of its first `samples` rows; returns `out`.

    metrics: of the steps by number, as far as the run has written them. samples_of: whose part it is. worst: samples
    that stand before all steps, each with its step, its place in the step's batches and its loss.
    """
    first = steps[0]
    figures = _figures(modality, first)[0]
    lede, about = figures.about(next(iter(cameras_of(first.batches[0]).values())))
    names = ", ".join(str(one.step) for one in steps)
    text = page(
        kind="steps of a run",
        title=f"{run.resolve().name}: step {names}",
        lede=lede,
        facts={
            **_facts(first.data),
            "samples of": samples_of,
            **{name: value for name, value in about.items() if value},
        },
        sections=[
            *([_worst(modality, worst)] if worst else []),
            *(_section(modality, one, metrics.get(one.step), samples) for one in steps),
        ],
        by_section=len(steps) > 1 or bool(worst),
    )
    return write_page(text, out)


def _facts(data: RunData) -> dict[str, str]:
    """Where the samples come from."""
    if not isinstance(data, OpenMixture):
        return {"location": data.location, "version": str(data.version)}
    named = zip(data.mixture.names, data.manifests, strict=True)
    return {name: f"version {one.version} of {one.location}" for name, one in named}


def _figures(modality: Modality, one: Replayed) -> list[Figures[Any]]:
    """What draws the samples of each split."""
    return [modality.figures(one.recipe.data, split) for split in manifests_of(one.data)]


def _card(one: Replayed, figures: Sequence[Figures[Any]], batch: Batch, row: int) -> Card:
    """A row, drawn with the words of its split; of a mixture its title says the source."""
    if batch.source is None or not isinstance(one.data, OpenMixture):
        return figures[0].sample(batch, row)
    part = int(batch.source[row])
    card = figures[part].sample(batch, row)
    return replace(card, title=f"{card.title or card.key} of {one.data.mixture.names[part]}")


def _worst(modality: Modality, worst: Sequence[tuple[Replayed, int, float]]) -> Section:
    cards: list[Card] = []
    for one, place, loss in worst:
        figures = _figures(modality, one)
        at, row = divmod(place, len(one.batches[0]))
        for camera, own in cameras_of(one.batches[at]).items():
            card = _card(one, figures, own, row)
            named = f"{card.key}, {camera}" if camera else card.key
            cards.append(replace(card, title=f"{named}: {loss:.4g} in step {one.step}"))
    words = f"{plural(len(worst), 'sample')} whose losses stand out most from the steps around, the worst first."
    return Section(title="Worst samples", words=words, cards=tuple(cards))


def _section(modality: Modality, one: Replayed, metrics: StepMetrics | None, samples: int) -> Section:
    figures, views = _figures(modality, one), int(getattr(one.recipe.data, "views", 1))
    cards: list[Card] = []
    for batch in one.batches:
        for row in range(min(len(batch), samples * views - len(cards))):
            for camera, own in cameras_of(batch).items():
                card = replace(_card(one, figures, own, row), view=row % views + 1 if views > 1 else None)
                cards.append(replace(card, title=f"{card.key}, {camera}") if camera else card)
    rows = sum(map(len, one.batches))
    words = [f"Epoch {one.epoch}, batch {one.batch}, {plural(rows, 'row')}."]
    if one.replaced:
        words.append(f"Of {plural(one.replaced, 'sample')} that cannot be read another stands in the place.")
    if metrics is not None:
        words.append(f"The loss was {metrics.loss:.4g}, the norm of the gradient {metrics.grad_norm:.4g}.")
    return Section(title=f"Step {one.step}", words=" ".join(words), cards=tuple(cards))
