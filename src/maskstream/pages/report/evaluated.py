"""The words and pictures of any evaluation."""

from __future__ import annotations

from typing import Any

from ...train.evaluate.evaluation import Compared, Evaluation, Pictures, Score
from ...train.evaluate.held_out import HeldOut
from ...train.evaluate.held_out import Score as Figure
from ..figures.card import Card, Picture, Section
from ..figures.card import Pictures as Shown
from ..figures.figures import Figures
from ..figures.pictures import data_uri, resize
from ..figures.work import Work

SIDE_PX, ACROSS = 96, 4


def work_of_evaluation(found: Evaluation, figures: Figures[Any]) -> Work:
    """The evaluation as a report shows it."""
    first = found.scores[0]
    facts = {name: words for score in found.scores for name, words in score_facts(score).items()}
    notes = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in found.notes.items()}
    held_out = HeldOut(
        facts={**facts, **notes},
        learns=found.learns,
        loss=found.loss.name,
        baseline=found.loss.baseline,
        baseline_loss=found.loss.value,
        score=Figure(
            name=" in ".join(part for part in (first.name, first.unit) if part),
            value=first.value,
            baselines=first.baselines,
            lower_is_better=first.lower_is_better,
        ),
    )
    return Work(found=held_out, sections=tuple(section_of(one, figures) for one in found.examples))


def score_facts(score: Score) -> dict[str, str]:
    """A score in words: the model's with its distance from the best baseline, then each baseline's."""
    what = f"{score.name} of {score.count:,} {score.of}" if score.count else score.name
    facts = {what: number(score.value, score.unit)}
    if score.baselines:
        facts[what] += f", {margin(score)}"
    return facts | {f"{score.name} by {name}": number(value, score.unit) for name, value in score.baselines.items()}


def number(value: float, unit: str) -> str:
    """A value with its unit, to four digits."""
    return f"{value:.1%}" if unit == "%" else f"{value:.4g} {unit}".strip()


def margin(score: Score) -> str:
    """How far a score lies from its best baseline."""
    best = score.baselines[score.best]
    if not best:
        return f"beside {number(best, score.unit)} of {score.best}"
    share, better = score.value / best - 1, (score.value < best) is score.lower_is_better
    end = "" if better else ": the model does not generalise"
    return f"{abs(share):.0%} {'below' if share < 0 else 'above'} {score.best}{end}"


def section_of(one: Compared | Pictures, figures: Figures[Any]) -> Section:
    """Cards of examples."""
    if isinstance(one, Compared):
        cards = tuple(figures.compared(one.batch, one.made, row) for row in one.rows)
    else:
        cards = tuple(
            Card(
                key=name,
                words="",
                figures=(
                    Shown(
                        items=tuple(
                            Picture(uri=data_uri(image), alt=f"{name} {i + 1}")
                            for i, image in enumerate(resize(images.numpy(), SIDE_PX, SIDE_PX))
                        ),
                        across=ACROSS,
                    ),
                ),
            )
            for name, images in one.sets.items()
        )
    return Section(title=one.title, words=one.reading, cards=cards, layout="columns")
