"""The page of steps of a run: the batches that the model received, and how far their losses stand out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskstream.modality import Modality
from maskstream.pages.figures.card import Card, Fact, Facts, Section
from maskstream.pages.figures.figures import Figures
from maskstream.pages.figures.words import plural
from maskstream.pages.page import page, write_page
from maskstream.pages.preview import split_cameras
from maskstream.pipelines.modalities.mixture import OpenMixture, list_manifests
from maskstream.pipelines.stream.batch import Batch
from maskstream.shards.arrays import Float32s
from maskstream.train.core.metrics import StepMetrics
from maskstream.train.core.replay import UNRECORDED, ReplayedStep
from maskstream.train.core.sample_losses import read_step_losses

ALL_RANKS = "all ranks"


def write_replay(
    modality: Modality,
    run: Path,
    steps: Sequence[ReplayedStep],
    metrics: Mapping[int, StepMetrics],
    out: str | Path,
    *,
    samples: int = 8,
    samples_of: str = ALL_RANKS,
    worst: Sequence[tuple[ReplayedStep, int, float]] = (),
) -> Path:
    """Write a page with a section for each step and a card for each of its first rows.

    Args:
        modality: Modality of the run's data.
        run: Folder of the run.
        steps: Recreated steps.
        metrics: Metrics of the steps by number, for the steps that the run has written.
        out: HTML file.
        samples: Number of rows per step.
        samples_of: Description of the part of the batches.
        worst: Samples to put before all steps: step, index in the step's batches, and loss.

    Returns:
        `out`.
    """
    first, whole = steps[0], samples_of == ALL_RANKS
    figures = _make_painters(modality, first)[0]
    lede, about = figures.about(next(iter(split_cameras(first.batches[0]).values())))
    names = ", ".join(str(one.step) for one in steps)
    text = page(
        kind="steps of a run",
        title=f"{run.resolve().name}: step {names}",
        lede=lede,
        facts={
            **_facts(steps),
            "samples of": samples_of,
            **{name: value for name, value in about.items() if value},
        },
        sections=[
            *([_draw_worst(modality, worst)] if worst else []),
            *(
                _build_section(
                    modality, one, metrics.get(one.step), samples, read_step_losses(run, one.step) if whole else None
                )
                for one in steps
            ),
        ],
        by_section=len(steps) > 1 or bool(worst),
    )
    return write_page(text, out)


def _facts(steps: Sequence[ReplayedStep]) -> dict[str, str]:
    """Return the locations and versions of the splits."""
    splits = [list_manifests(one.data) for one in steps]
    versions = [", ".join(dict.fromkeys(str(one.version) for one in own)) for own in zip(*splits, strict=True)]
    data = steps[0].data
    if not isinstance(data, OpenMixture):
        return {"location": data.location, "version": versions[0]}
    named = zip(data.mixture.names, data.manifests, versions, strict=True)
    return {name: f"version {version} of {one.location}" for name, one, version in named}


def _make_painters(modality: Modality, one: ReplayedStep) -> list[Figures[Any]]:
    """Return the figures that draw the samples of each split."""
    return [modality.figures(one.recipe.data, split) for split in list_manifests(one.data)]


def _draw_row(
    one: ReplayedStep, painters: Sequence[Figures[Any]], batch: Batch, row: int, loss: float | None = None
) -> Iterator[Card]:
    """Draw a row for each camera with the figures of its split; for a mixture, the title includes the source."""
    source = None if batch.source is None or not isinstance(one.data, OpenMixture) else int(batch.source[row])
    for camera, own in split_cameras(batch).items():
        card = painters[source or 0].sample(own, row)
        if source is not None and isinstance(one.data, OpenMixture):
            card = replace(card, title=f"{card.title or card.key} of {one.data.mixture.names[source]}")
        if loss is not None:
            card = replace(card, facts=(Facts(items=(Fact(name="Loss", value=f"{loss:.4g}"),)), *card.facts))
        yield replace(card, title=f"{card.key}, {camera}" if camera else card.title)


def _draw_worst(modality: Modality, worst: Sequence[tuple[ReplayedStep, int, float]]) -> Section:
    cards: list[Card] = []
    words = [f"{plural(len(worst), 'sample')} whose losses stand out most from neighbouring steps, worst first."]
    for one, place, loss in worst:
        if gone := one.replaced_at(place):
            words.append(f"The loss {loss:.4g} in step {one.step} belongs to {gone}, which cannot be shown.")
            continue
        at, row = divmod(place, len(one.batches[0]))
        for card in _draw_row(one, _make_painters(modality, one), one.batches[at], row, loss):
            cards.append(replace(card, title=f"{card.title or card.key}: {loss:.4g} in step {one.step}"))
    return Section(title="Worst samples", words=" ".join(words), cards=tuple(cards))


def _build_section(
    modality: Modality, one: ReplayedStep, metrics: StepMetrics | None, samples: int, losses: Float32s | None
) -> Section:
    painters, views = _make_painters(modality, one), int(getattr(one.recipe.data, "views", 1))
    cards: list[Card] = []
    begin = 0
    for batch in one.batches:
        for row in range(min(len(batch), samples * views - len(cards))):
            gone = one.replaced_at(begin + row)
            loss = None if losses is None or gone is not None else float(losses[begin + row])
            for card in _draw_row(one, painters, batch, row, loss):
                title = card.title if gone is None else f"{card.title or card.key} instead of {gone}"
                cards.append(replace(card, title=title, view=row % views + 1 if views > 1 else None))
        begin += len(batch)
    rows = sum(map(len, one.batches))
    words = [f"Epoch {one.epoch}, batch {one.batch}, {plural(rows, 'row')}."]
    words += [f"Row {place + 1} shows another sample instead of {gone}." for place, gone in one.replaced.items()]
    if not one.recorded:
        words.append(UNRECORDED)
    if metrics is not None:
        words.append(f"The loss was {metrics.loss:.4g}, and the gradient norm {metrics.grad_norm:.4g}.")
    return Section(title=f"Step {one.step}", words=" ".join(words), cards=tuple(cards))
