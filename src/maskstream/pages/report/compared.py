"""The report of several runs: differences of their recipes, scores in columns, losses in one chart, and predictions for
the same samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maskstream.modality import Modality
from maskstream.pages.figures.card import Section
from maskstream.pages.figures.chart import Chart, Line, smoothed
from maskstream.pages.page import render, write_page
from maskstream.shards.config import compare
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.stores.url import get_local_path
from maskstream.train.core.metrics import StepMetrics
from maskstream.train.core.run_folder import run_recipe, run_settings
from maskstream.train.evaluate.evaluation import Evaluation

from .evaluated import Cells, Row, number, score_name
from .report import RunCurves, evaluate_run_once, probed, read_steps, run_curves

_SETTINGS = ("seed", "steps", "samples_per_step", "precision")


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A written comparison: its page, the names of the runs, and the rows of its table by their heading."""

    page: Path
    names: tuple[str, ...]
    rows: dict[str, tuple[Row, ...]]


def compare_runs(
    modality: Modality,
    runs: Sequence[str | Path],
    data: SplitLocation,
    out: str | Path | None = None,
    *,
    clips: int = 4,
    same_split: bool = False,
) -> Comparison:
    """Write a page that compares runs on samples of a split, preferably a validation split.

    Each run is measured as for its own report, and its evaluation.json keeps the scores. See also `write_report`.

    Args:
        modality: Modality of the split.
        runs: Folders of the runs.
        data: Location of the split.
        out: HTML file; defaults to compared.html in the first run.
        clips: Number of samples to show.
        same_split: Allow samples that the runs were trained on.
    """
    folders = [get_local_path(run, "the run") for run in runs]
    split = Manifest.load(data)
    metrics = [read_steps(folder) for folder in folders]
    recipes = [run_recipe(folder) for folder in folders]
    found, sections = [], []
    for folder, recipe in zip(folders, recipes, strict=True):
        ((evaluation, drawn),) = evaluate_run_once(modality, folder, recipe, [split], clips, same_split=same_split)
        found.append(evaluation)
        sections.append(drawn)
    curves = [run_curves(steps, one.loss) for steps, one in zip(metrics, found, strict=True)]
    names = make_unique_names(folders)
    settings = [{name: run_settings(folder).get(name) for name in _SETTINGS} for folder in folders]
    whole = [{**recipe.to_dict(identity=True), **own} for recipe, own in zip(recipes, settings, strict=True)]
    scores, others = score_rows(found)
    rows = {
        "What differs": tuple(compare(whole).items()) or (("nothing", ("",) * len(names)),),
        f"On held-out samples of {split.info['dataset']}/{split.info['split']}": tuple(scores),
        "Probes": tuple(probe_rows(folders)),
        "Training": tuple(list_training_rows(curves)),
    }
    rows = {title: some for title, some in rows.items() if some}
    page = render(
        "compared.html.j2",
        title=f"{', '.join(names[:-1])} and {names[-1]}",
        facts={"samples": f"{len(split):,} of {split.location}"},
        names=names,
        rows=rows,
        baselines={"Baselines and other numbers": others} if others else {},
        losses=list(dict.fromkeys(one.loss.name for one in found)),
        charts=True,
        chart=draw_loss_chart(metrics, names),
        sections=[replace(one, layout="columns") for one in beside(names, sections)],
    )
    return Comparison(page=write_page(page, out or folders[0] / "compared.html"), names=names, rows=rows)


def make_unique_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """Return the names of folders, with as many parent folders as needed to distinguish them."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts))):
        names = tuple("/".join(one[-count:]) for one in parts)
        if len(set(names)) == len(names):
            return names
    return tuple(map(str, folders))


def score_rows(found: Sequence[Evaluation]) -> tuple[list[Row], list[Row]]:
    """Return the rows of the scores, each followed by its best baseline, and the rows of all baselines and notes."""
    scores, others = Cells(len(found)), Cells(len(found))
    for column, one in enumerate(found):
        for score in one.scores:
            # A unit of several words is written once, after the name.
            head, unit = score_name(score), score.unit if score.unit in ("%", "dB") else ""
            head = head if unit or not score.unit else f"{head}, in {score.unit}"
            scores.put(head, "", column, number(score.value, unit))
            for name, value in score.baselines.items():
                others.put(head, name, column, number(value, unit))
            if score.baselines:
                scores.put(head, f"best baseline: {score.best}", column, number(score.baselines[score.best], unit))
        for name, note in one.notes.items():
            others.put(name, "", column, number(note, ""))
    return scores.rows(), others.rows()


def list_training_rows(curves: Sequence[RunCurves]) -> list[Row]:
    """Return rows on the length and speed of the training."""
    cells = Cells(len(curves))
    for column, one in enumerate(curves):
        for name, value in one.numbers.items():
            cells.put(name, "", column, value)
    return cells.rows()


def probe_rows(folders: Sequence[Path]) -> list[Row]:
    """Return rows of probe results: means with ranges in parentheses."""
    cells = Cells(len(folders))
    for column, folder in enumerate(folders):
        result = probed(folder)
        for one in () if result is None else result.reached:
            cells.put(f"{one.probe} probe", one.encoder, column, f"{one.mean:.3f} ({one.spread:.3f})")
    return cells.rows()


def draw_loss_chart(metrics: Sequence[Sequence[StepMetrics]], names: Sequence[str]) -> Chart:
    """Draw the losses of runs by step in one chart; first steps far above the rest are cut off.

    Args:
        metrics: Metrics of each run.
        names: Names of the runs.
    """
    lines: list[Line] = []
    high = []
    for hue, (name, rows) in enumerate(zip(names, metrics, strict=True)):
        kept = sorted((row for row in rows if not row.skipped), key=lambda row: row.step)
        steps, losses = np.array([(row.step, row.loss) for row in kept], dtype=np.float64).T
        high.append(float(np.quantile(losses, 0.9)))
        lines += smoothed(steps, losses, name, max(len(kept) // 50, 2) * 2 + 1, hue)
    return Chart(lines=tuple(lines), said="Loss by step", top=1.5 * max(high))


def beside(names: Sequence[str], sections: Sequence[Sequence[Section]]) -> list[Section]:
    """Combine the first sections of all runs: sample by sample, and for each sample run by run.

    Args:
        names: Names of the runs.
        sections: Sections of each run.
    """
    first = [some[0] for some in sections if some]
    count = min((len(one.cards) for one in first), default=0)
    cards = [
        replace(one.cards[n], title=name, words=" · ".join(filter(None, [one.cards[n].key, one.cards[n].words])))
        for n in range(count)
        for name, one in zip(names, first, strict=True)
    ]
    return [Section(title=first[0].title, words=first[0].words, cards=tuple(cards))] if cards else []
