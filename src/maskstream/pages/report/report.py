"""The report of a run: its loss, its speed, and its predictions for samples."""

import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from maskstream.modality import Modality
from maskstream.pages.figures.card import Section, label_names
from maskstream.pages.figures.chart import Chart, Line, Series, smoothed
from maskstream.pages.figures.words import percent, plural
from maskstream.pages.page import page, write_page
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.stores.local_files import is_being_written
from maskstream.shards.stores.url import get_local_path
from maskstream.train.core.guard import find_line
from maskstream.train.core.metrics import StepMetrics, read_metrics
from maskstream.train.core.process import CPU, compute_threads
from maskstream.train.core.recipe import Recipe, check_modality
from maskstream.train.core.run_folder import run_recipe, run_settings, run_weights
from maskstream.train.core.weights import compute_weights_sum, load_model
from maskstream.train.evaluate.evaluation import Evaluation, TrainingLoss
from maskstream.train.evaluate.features import match_labels_of_run
from maskstream.train.evaluate.probe import PROBE, ProbeResult
from maskstream.train.evaluate.unseen import check_unseen
from maskstream.train.evaluate_run import evaluate_model, keep_evaluation

from .drawn import make_sections
from .evaluated import list_data_facts, score_facts, score_rows

BASELINES = (
    "Baselines are not trained: they predict hidden content from visible content, or ignore the sample. The samples "
    "are the same as in the scores above."
)


FOLLOW_S = 15
_FIGURES = 3
"""Number of figures that are visible at the top of a report; the others are folded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The file of a written report, and the facts on held-out samples that its head shows."""

    page: Path
    facts: Mapping[str, str]


def report_page(
    metrics: Sequence[StepMetrics],
    found: Evaluation,
    sections: Sequence[Section],
    facts: Mapping[str, str],
    *,
    title: str,
    headline: str = "",
    details: Mapping[str, str] | None = None,
) -> str:
    """Return the report as one self-contained HTML file.

    The first card of the first section comes before the curves.

    Args:
        metrics: Metrics of every step.
        found: Evaluation of the model.
        sections: Sections of examples.
        facts: Facts under the title.
        title: Title of the page.
        headline: First sentence of the page.
        details: More facts, which are folded.

    Raises:
        ValueError: The metrics have no step.
    """
    curves = run_curves(metrics, found.loss)
    first, *rest = sections
    if len(first.cards) > 1:
        rest = [replace(first, title=f"More: {first.title}", words="", cards=first.cards[1:]), *rest]
        first = replace(first, cards=first.cards[:1])
    return page(
        kind="run report",
        title=title,
        headline=headline,
        lede=f"{found.learns} This page shows its loss over {plural(curves.steps, 'step')}, its speed, and its "
        "predictions for held-out samples.",
        facts=facts,
        sections=(first, *rest),
        curves=curves,
        details=details,
    )


def list_evaluated_facts(found: Evaluation, unseen: Evaluation | None, units: str) -> dict[str, str]:
    """Return the scores as text, then the scores on sources that were not trained on.

    Args:
        found: The evaluation.
        unseen: Evaluation on other sources, or None.
        units: Word for samples.
    """
    others = {} if unseen is None else score_facts(unseen.scores)
    return {**score_facts(found.scores), **{f"unseen {units}: {name}": words for name, words in others.items()}}


def list_evaluated_sections(
    found: Sequence[Section], unseen: Sequence[Section], numbers: Evaluation, units: str
) -> tuple[Section, ...]:
    """Return the examples, with the first example of other sources after the first, and all baselines at the end.

    Args:
        found: Sections of the evaluation.
        unseen: Sections of other sources.
        numbers: The evaluation, for the baselines.
        units: Word for samples.
    """
    first, *rest = found
    apart = [replace(one, title=f"{one.title} of unseen {units}") for one in unseen[:1]]
    rows = score_rows(numbers)
    table = [Section(title="Baselines and other numbers", words=BASELINES, numbers=rows)] if rows else []
    return (first, *apart, *rest, *table)


def write_report(
    modality: Modality,
    run: str | Path,
    data: SplitLocation,
    out: str | Path | None = None,
    *,
    unseen: SplitLocation | None = None,
    recipe: Recipe[Any] | None = None,
    clips: int = 8,
    same_split: bool = False,
) -> Report:
    """Write the report of a run, with samples of a split, preferably a validation split.

    The weights of the newest intact checkpoint are used, on the CPU.

    Args:
        modality: Modality of the split.
        run: Folder of the run.
        data: Location of the split.
        out: HTML file; defaults to run/report.html.
        unseen: A split of other sources than the training split's, whose results appear separately.
        recipe: Recipe of the run; defaults to the one in run.json.
        clips: Number of samples to show.
        same_split: Allow samples that the run was trained on.

    Raises:
        ValueError: The folder is not a run, the recipe is unknown, or a split has samples that the run was trained on.
        ShardError: A split is unfinished or missing.
    """
    run = get_local_path(run, "the run")
    metrics = read_steps(run)
    settings = run_settings(run)
    recipe = recipe or run_recipe(run, "pass write_report(recipe=...)")
    splits = [Manifest.load(one) for one in (data, unseen) if one is not None]
    both = evaluate_run_once(modality, run, recipe, splits, clips, same_split=same_split)
    evaluations, sections = [one for one, _ in both], [one for _, one in both]
    found, other = evaluations[0], evaluations[1] if len(evaluations) > 1 else None
    measured = {**list_evaluated_facts(found, other, modality.units), **list_data_facts(recipe.data)}
    reached = probed(run)
    details = {
        "recipe": recipe.name,
        "samples per step": str(settings.get("samples_per_step", "unknown")),
        "device": str(settings.get("device", "unknown")),
        "seed": str(settings.get("seed", "unknown")),
        **_describe_efficiency(metrics),
        **_sources(metrics),
        "weights": f"step {compute_weights_sum(run_weights(run))[1] or 'unknown'}",
        "shown below": str(data) if unseen is None else f"{data}, then {unseen}",
        **({} if reached is None else reached.facts()),
        **dict([*measured.items()][_FIGURES:]),
    }
    headline = "" if reached is None else reached.headline()
    text = report_page(
        metrics,
        found,
        list_evaluated_sections(sections[0], sections[1] if other else (), found, modality.units),
        dict([*measured.items()][:_FIGURES]),
        title=f"{run.resolve().name}: {recipe.name}",
        headline=headline,
        details=details,
    )
    written = write_page(text, run / "report.html" if out is None else out)
    return Report(page=written, facts=measured)


def follow_run(run: Path, out: str | Path | None = None, every_s: int = FOLLOW_S) -> None:
    """Write a page of a run's curves repeatedly while a process trains it; the page reloads itself.

    Args:
        run: Folder of the run.
        out: HTML file; defaults to run/report.html.
        every_s: Seconds between two updates.
    """
    out = run / "report.html" if out is None else out
    while is_being_written(run):
        metrics = read_metrics(run / "metrics.jsonl")
        text = page(
            kind="run report",
            title=f"{run.resolve().name} is training",
            lede="The page reloads itself while the run continues; the final report replaces it.",
            facts=_describe_efficiency(metrics) | _sources(metrics) if metrics else {"steps": "none yet"},
            sections=(),
            curves=run_curves(metrics, None) if metrics else None,
            reload_s=every_s,
        )
        write_page(text, out)
        time.sleep(every_s)


def read_steps(run: Path) -> list[StepMetrics]:
    """Return the metrics of a run's steps; raise ValueError if there are none."""
    metrics = read_metrics(run / "metrics.jsonl")
    if not metrics:
        raise ValueError(f"{run} has no metrics.jsonl with a step in it; pass a folder written by `maskstream train`")
    return metrics


def evaluate_run_once(
    modality: Modality, run: Path, recipe: Recipe[Any], splits: Sequence[Manifest], clips: int, *, same_split: bool
) -> list[tuple[Evaluation, tuple[Section, ...]]]:
    """Evaluate a run on each split, save the scores in its folder, and draw examples.

    Args:
        modality: Modality of the splits.
        run: Folder of the run.
        recipe: Recipe of the run.
        splits: Splits to evaluate on.
        clips: Number of samples to show.
        same_split: Allow samples that the run was trained on.

    Returns:
        The evaluation and the sections of each split.

    Raises:
        ValueError: A split has no samples, or samples that the run was trained on.
    """
    for split in splits:
        check_modality(recipe, split)
        if min(clips, len(split)) < 1:
            raise ValueError(f"a report needs at least one clip, but {split} has none, or clips=0 was passed")
    weights = run_weights(run)
    for split in splits:
        check_unseen(split, runs=[run], same_split=same_split)
    made = []
    with compute_threads(CPU):
        model = load_model(weights)
        for split in [match_labels_of_run(split, run) for split in splits]:
            found = evaluate_model(recipe, model, split, min(clips, len(split)))
            keep_evaluation(run, recipe, weights, split, found)
            figures = modality.figures(recipe.data.elsewhere(), split)
            made.append((found, make_sections(found.examples, figures, label_names(split.info))))
    return made


def probed(run: Path) -> ProbeResult | None:
    """Return the probe results of a run; None if it was not probed, ValueError if the file is damaged."""
    path = run / PROBE
    if not path.is_file():
        return None
    try:
        return ProbeResult.from_dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it, or run `maskstream probe` again") from error


def _describe_efficiency(metrics: Sequence[StepMetrics]) -> dict[str, str]:
    """Describe how well the last steps used the machine, and how many steps were skipped, as far as known."""
    last, skipped = metrics[-1], sum(row.skipped for row in metrics)
    shares = [row.mfu for row in metrics[-100:] if row.mfu is not None]
    found = {} if last.goodput is None else {"goodput": f"{last.goodput:.0%} of the time since the run started"}
    if shares:
        found["MFU"] = f"{sorted(shares)[len(shares) // 2]:.0%} of the rate of a large matrix product"
    times: dict[str, float] = defaultdict(float)
    for row in metrics[-100:]:
        for name, seconds in row.seconds.items():
            times[name] += seconds
    if whole := sum(times.values()):
        found["time by part"] = ", ".join(f"{name} {one / whole:.0%}" for name, one in times.items())
    if last.peak_bytes:
        found["peak memory"] = ", ".join(f"{name} {one / 1e9:.2f} GB" for name, one in last.peak_bytes.items())
    return found | ({"skipped steps": str(skipped)} if skipped else {})


LAST_STEPS = 20
_BASELINE = (
    " The line at {:.3g} is the loss of {}. The training loss can fall below it by memorising samples; the held-out "
    "scores above measure generalisation."
)


def _sources(metrics: Sequence[StepMetrics]) -> dict[str, str]:
    """Describe the samples of each source of a mixture, and the mean of its last losses."""
    found = {}
    for name, own in metrics[-1].sources.items():
        losses = [row.sources[name]["loss"] for row in metrics if "loss" in row.sources.get(name, {})][-LAST_STEPS:]
        loss = f", loss {sum(losses) / len(losses):.4g}" if losses else ""
        found[f"source {name}"] = f"{plural(int(own['samples']), 'sample')}, {own['epoch']:.3g} epochs{loss}"
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCurves:
    """The charts of a run, and the numbers next to them.

    Attributes:
        steps: Number of the last step.
        numbers: Names and values of its last losses and its speed.
        loss: Chart of the loss.
        small: Charts of the loss of each source of a mixture, the scores of validations, the measures of the guard, and
            the speed.
    """

    steps: int
    numbers: Mapping[str, str]
    loss: Chart
    small: tuple[Chart, ...]


def run_curves(metrics: Sequence[StepMetrics], of: TrainingLoss | None) -> RunCurves:
    """Draw the curves of a run, without skipped steps; first steps far above the rest are cut off.

    Args:
        metrics: Metrics of the steps.
        of: Description of the loss, with the loss of a trivial predictor; None if unknown.

    Raises:
        ValueError: The metrics have no step.
    """
    rows = sorted((row for row in metrics if not row.skipped), key=lambda row: row.step)
    if not rows:
        raise ValueError("the metrics contain no step; train at least one step before writing a report")
    steps, loss, lr, rate, wait = np.array(
        [(row.step, row.loss, row.lr, row.clips_per_s, row.data_wait_share) for row in rows], dtype=np.float64
    ).T
    window = max(len(rows) // 50, 2) * 2 + 1
    lines = smoothed(steps, loss, "loss", window)
    value = 0.0 if of is None else of.value
    edge = max(2 * value, 1.5 * float(np.quantile(loss, 0.9)))
    clipped = bool(loss.max() > edge)
    mean = f"; thick, the mean of the {window} steps around it" if len(lines) > 1 else ""
    return RunCurves(
        steps=rows[-1].step,
        numbers={
            f"Loss, mean of the last {plural(min(LAST_STEPS, len(rows)), 'step')}": f"{loss[-LAST_STEPS:].mean():.3g}",
            "Steps": f"{rows[-1].step:,}",
            "Samples per second, median": f"{np.median(rate):.1f}",
            "Time spent waiting for data": percent(float(wait.mean())),
        },
        loss=Chart(
            lines=lines,
            note=f"{'Training loss' if of is None else of.name}: thin, each step{mean}."
            + (_BASELINE.format(of.value, of.baseline) if of else "")
            + (f" Losses above {edge:.3g} are outside." if clipped else ""),
            said="Loss by step",
            include=(value,) if of else (),
            top=edge if clipped else None,
            reference=of.value if of else None,
        ),
        small=(
            *_draw_measured(_list_source_losses(rows), rows, "the loss of this source's samples", value),
            *_draw_measured([row.val for row in rows], rows, "on held-out samples, during training"),
            *map(_draw_guarded, _draw_measured([row.spread for row in rows], rows, "", 0.0)),
            _make_chart("Learning rate", "by step", steps, lr, 0.0),
            _make_chart("Throughput", "samples per second", steps, rate, 0.0),
            replace(
                _make_chart("Waiting for data", "fraction of a step's time", steps, 100 * wait, 0.0, 100.0), unit=" %"
            ),
        ),
    )


def _list_source_losses(rows: Sequence[StepMetrics]) -> list[dict[str, float]]:
    return [{name: own["loss"] for name, own in row.sources.items() if "loss" in own} for row in rows]


def _draw_measured(
    values: Sequence[Mapping[str, float]], rows: Sequence[StepMetrics], note: str, *include: float
) -> list[Chart]:
    """Draw a chart of each number that was measured in some of the steps; `values` has each step's numbers."""
    charts = []
    for name in dict.fromkeys(name for own in values for name in own):
        found = [(row.step, own[name]) for row, own in zip(rows, values, strict=True) if name in own]
        steps, numbers = np.array(found, dtype=np.float64).T
        charts.append(_make_chart(name, note, steps, numbers, *include))
    return charts


def _draw_guarded(chart: Chart) -> Chart:
    """Return the chart of a measure of the guard, with the threshold of collapse if it has one."""
    least = find_line(chart.title, float(chart.lines[0].y[0]))
    if least is None:
        return chart
    note = f"below the line at {least:.3g}, a run has collapsed"
    return replace(chart, note=note, include=(*chart.include, least), reference=least)


def _make_chart(title: str, note: str, steps: Series, values: Series, *include: float) -> Chart:
    return Chart(lines=(Line(x=steps, y=values),), title=title, note=note, said=f"{title} by step", include=include)
