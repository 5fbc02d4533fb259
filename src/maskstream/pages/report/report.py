"""The report of a run: how the loss fell, how fast the steps were, and what the model makes of samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ...modality import Modality
from ...shards.format.manifest import Manifest
from ...shards.stores.location import local_path
from ...train.core.export import load_model
from ...train.core.metrics import StepMetrics, read_metrics
from ...train.core.model import Model, ModelConfig
from ...train.core.recipe import Recipe, check_modality
from ...train.core.run_folder import run_recipe, run_settings, run_weights
from ...train.core.tensor_files import files_of
from ...train.core.threads import CPU, compute_threads
from ...train.evaluate.evaluation import Evaluate
from ...train.evaluate.probe import PROBE, ProbeResult
from ...train.papers import tables
from ..figures.words import plural
from ..figures.work import Work
from ..page import page, write_page
from .curves import run_curves
from .evaluated import work_of_evaluation

EVALUATIONS: dict[type[ModelConfig[Any]], Evaluate] = {
    kind: evaluate for table in tables("evaluate", "EVALUATIONS") for kind, evaluate in table.items()
}
"""The evaluations of all papers, by their models' configs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The file of a written report, and the facts on held-out samples that its head shows."""

    page: Path
    facts: Mapping[str, str]


def report_page(
    metrics: Sequence[StepMetrics], work: Work, facts: Mapping[str, str], *, title: str, headline: str = ""
) -> str:
    """The report as one HTML file, complete in itself.

    metrics: of every step. work: of the model. facts: shown under the title, in their order, before those of the work.
    headline: what the page says first. Raises ValueError where there is no step.
    """
    curves, found = run_curves(metrics, work.found.baseline_loss), work.found
    return page(
        kind="run report",
        title=title,
        headline=headline,
        lede=f"{found.learns} This page shows its loss over {plural(curves.steps, 'step')}, its speed, and its "
        "predictions for held-out samples.",
        facts={**facts, **found.facts},
        sections=work.sections,
        curves=curves,
        loss=found.loss,
        baseline=found.baseline,
    )


def work_of(modality: Modality, recipe: Recipe[Any], model: Model[Any], data: str | Path, shown: int) -> Work:
    """What a trained model makes of `shown` samples of the split at `data`, the same at each call.

    ValueError for a recipe whose kind of model the modality shows no work of.
    """
    for kind in type(recipe.model).__mro__:
        if kind in EVALUATIONS:
            found = EVALUATIONS[kind](model, recipe.data, data, shown)
            return work_of_evaluation(found, modality.figures(recipe.data, data))
        if kind in modality.works:
            return modality.works[kind](recipe.data, model, data, shown, modality.figures(recipe.data, data))
    raise ValueError(
        f"there is no report for a {type(recipe.model).__name__}; add it to `works` of the modality {modality.name}"
    )


def with_unseen(work: Work, unseen: Work, units: str) -> Work:
    """The work with the facts and the first section of that on sources that were not trained on."""
    known = work.found.facts.items()
    facts = {
        f"unseen {units}: {name}": words for name, words in unseen.found.facts.items() if (name, words) not in known
    }
    first, *rest = work.sections
    section = replace(unseen.sections[0], title=f"{unseen.sections[0].title} of unseen {units}")
    return Work(found=replace(work.found, facts={**work.found.facts, **facts}), sections=(first, section, *rest))


def write_report(
    modality: Modality,
    run: str | Path,
    data: str | Path,
    out: str | Path | None = None,
    *,
    unseen: str | Path | None = None,
    recipe: Recipe[Any] | None = None,
    clips: int = 8,
) -> Report:
    """Writes the report of the run in the folder `run`, with samples of the split at `data`, best a validation split.

    `clips` of them are shown. unseen: a split of other sources than those of the training split, whose results are
    shown apart. The weights are those of the run's newest whole checkpoint, on the CPU. recipe: the run's
    own; by default the one that run.json holds. out: run/report.html by default.

    Raises ValueError where the folder is not that of a run or its recipe is not known, ShardError where `data` holds
    no finished split.
    """
    run = local_path(run, "the run")
    metrics = read_metrics(run / "metrics.jsonl")
    if not metrics:
        raise ValueError(f"{run} has no metrics.jsonl with a step in it; give the folder that `maskstream train` wrote")
    settings = run_settings(run)
    recipe = recipe or run_recipe(run, "pass write_report(recipe=...)")
    check_modality(recipe, data)
    for split in (data, unseen):
        if split is not None and min(clips, len(Manifest.load(split))) < 1:
            raise ValueError(f"a report shows 1 or more clips, but {split} has none to show, or clips=0 was given")
    weights = run_weights(run)
    with compute_threads(CPU):
        model = load_model(weights)
        work = work_of(modality, recipe, model, data, min(clips, len(Manifest.load(data))))
        if unseen is not None:
            check_modality(recipe, unseen)
            other = work_of(modality, recipe, model, unseen, min(clips, len(Manifest.load(unseen))))
            work = with_unseen(work, other, modality.units)
    probed = _probed(run / PROBE)
    facts = {
        "recipe": recipe.name,
        "samples per step": str(settings.get("samples_per_step", "unknown")),
        "device": str(settings.get("device", "unknown")),
        "seed": str(settings.get("seed", "unknown")),
        **_efficiency(metrics),
        "weights": f"step {_step(weights)}",
        "shown below": str(data) if unseen is None else f"{data}, then {unseen}",
        **({} if probed is None else probed.facts()),
    }
    headline = "" if probed is None else probed.headline()
    text = report_page(metrics, work, facts, title=f"{run.resolve().name}: {recipe.name}", headline=headline)
    written = write_page(text, run / "report.html" if out is None else out)
    return Report(page=written, facts=work.found.facts)


def _probed(path: Path) -> ProbeResult | None:
    """The probe of a run; None if it was not probed. ValueError if the file is damaged."""
    if not path.is_file():
        return None
    try:
        return ProbeResult.from_dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it, or run `maskstream probe` again") from error


def _step(weights: Path) -> str:
    with safe_open(files_of(weights)[0], framework="pt") as file:
        return str((file.metadata() or {}).get("step", "unknown"))


def _efficiency(metrics: Sequence[StepMetrics]) -> dict[str, str]:
    """What the last steps say of how well the machine was used, and how many steps were skipped, where it is known."""
    last, skipped = metrics[-1], sum(row.skipped for row in metrics)
    shares = [row.mfu for row in metrics[-100:] if row.mfu is not None]
    found = {} if last.goodput is None else {"goodput": f"{last.goodput:.0%} of the time since the run began"}
    if shares:
        found["MFU"] = f"{sorted(shares)[len(shares) // 2]:.0%} of a large matrix product's rate"
    return found | ({"skipped steps": str(skipped)} if skipped else {})
