"""Evaluates the model of a run on a split, and writes the scores to evaluation.json in the run's folder.

The file is an object with `format`, which is 1, and `evaluations`, one for each split, of the run's newest weights. Its
schema is docs/evaluation.schema.json.
"""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from maskstream.shards.config import rebuild
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.stores.local_files import publish
from maskstream.shards.stores.url import get_local_path

from .core.model import Model
from .core.process import CPU, compute_threads
from .core.recipe import Recipe, check_modality
from .core.run_folder import run_recipe, run_weights
from .core.weights import compute_weights_sum, load_model
from .evaluate import classifier, pairs, patches
from .evaluate.evaluation import Evaluate, Evaluation, Score
from .evaluate.features import match_labels_of_run
from .evaluate.unseen import check_unseen
from .nn.masked_autoencoder import ImageAutoencoderConfig
from .nn.pair_model import PairConfig
from .papers import tables

log = logging.getLogger(__name__)

KEPT = "evaluation.json"
FORMAT = 1
EVALUATIONS: dict[type, Evaluate] = {
    ImageAutoencoderConfig: patches.evaluate,
    PairConfig: pairs.evaluate,
    classifier.ClassifierConfig: classifier.evaluate,
    classifier.EncoderClassifierConfig: classifier.evaluate,
    **{kind: evaluate for table in tables("evaluate", "EVALUATIONS") for kind, evaluate in table.items()},
}
"""Evaluations by model config: those that papers share (MAE and DMAE; AVSiam), of fine-tuning, and of single papers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedSplit:
    """The evaluated split: its folder, dataset, name and version, and the fingerprint of its samples."""

    location: str
    dataset: str
    split: str
    version: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEvaluation:
    """The scores of a run on a split.

    Attributes:
        recipe: Name of the recipe.
        step: Step of the weights.
        weights: Checksum of the weights.
        release: Version of maskstream.
        commit: Commit of the checkout; empty outside a checkout.
        data: The split.
        scores: All scores.
        notes: Further figures by name.
    """

    recipe: str
    step: int
    weights: str
    release: str
    commit: str
    data: EvaluatedSplit
    scores: tuple[Score, ...]
    notes: Mapping[str, float] = field(default_factory=dict)

    def same(self, other: RunEvaluation) -> bool:
        """Return whether `other` has the same weights and samples and was computed by the same code."""
        return replace(self, scores=(), notes={}) == replace(other, scores=(), notes={})


def evaluate_model(recipe: Recipe[Any], model: Model[Any], data: Manifest, shown: int) -> Evaluation:
    """Evaluate a trained model on a split.

    Args:
        recipe: Recipe of the model, whose data settings are used.
        model: The model, in eval mode.
        data: The split.
        shown: Number of example predictions to return.

    Returns:
        Scores, notes and examples.

    Raises:
        ValueError: `EVALUATIONS` has no entry for this kind of model.
    """
    for kind in type(recipe.model).__mro__:
        if kind in EVALUATIONS:
            return EVALUATIONS[kind](model, recipe.data.elsewhere(), data, shown)
    raise ValueError(
        f"{type(recipe.model).__name__} has no evaluation; add one to EVALUATIONS in its paper's evaluate.py"
    )


def evaluate_run(
    run: str | Path,
    data: SplitLocation,
    *,
    recipe: Recipe[Any] | None = None,
    again: bool = False,
    same_split: bool = False,
) -> RunEvaluation:
    """Return the scores of a run on a split, preferably a validation split.

    They are read from the run's evaluation.json if it has scores of the same weights, samples and code. Otherwise they
    are measured on the CPU and saved there.

    Args:
        run: Folder of the run.
        data: Location of the split.
        recipe: Recipe of the run, if run.json has none.
        again: Measure even if there are saved scores.
        same_split: Allow samples that the run was trained on.

    Returns:
        The evaluation.

    Raises:
        ValueError: The folder is not a run, `EVALUATIONS` has no entry for its kind of model, or the run was trained on
            samples of the split.
        ShardError: The split is unfinished or missing.
    """
    folder = get_local_path(run, "the run")
    recipe = recipe or run_recipe(folder)
    data = Manifest.load(data)
    check_modality(recipe, data)
    data = match_labels_of_run(data, folder)
    weights = run_weights(folder)
    check_unseen(data, runs=[folder], same_split=same_split)
    begun = _begun(recipe, weights, data)
    if not again:
        for one in read_evaluations(folder):
            if one.same(begun):
                return one
    with compute_threads(CPU):
        found = evaluate_model(recipe, load_model(weights), data, 2)
    return keep_evaluation(folder, recipe, weights, data, found)


def keep_evaluation(run: Path, recipe: Recipe[Any], weights: Path, data: Manifest, found: Evaluation) -> RunEvaluation:
    """Save the scores of a run's weights on a split in its evaluation.json.

    Scores of other weights, and earlier scores on this split, are dropped. If the folder cannot be written, a warning
    is logged.

    Args:
        run: Folder of the run.
        recipe: Recipe of the run.
        weights: File of the evaluated weights.
        data: The split.
        found: Scores to save.

    Returns:
        The saved evaluation.
    """
    made = replace(_begun(recipe, weights, data), scores=found.scores, notes=found.notes)
    others = [
        one for one in read_evaluations(run) if one.weights == made.weights and one.data.location != made.data.location
    ]
    text = json.dumps({"format": FORMAT, "evaluations": [asdict(one) for one in (*others, made)]}, indent=2)
    try:
        publish(run / KEPT, f"{text}\n".encode())
    except OSError as error:
        log.warning("%s cannot be written (%s)", run / KEPT, error.strerror or error)
    return made


def read_evaluations(run: Path) -> Sequence[RunEvaluation]:
    """Return the evaluations in a run's evaluation.json; none if it is missing or, with a warning, if it is damaged."""
    path = run / KEPT
    if not path.is_file():
        return []
    try:
        saved = json.loads(path.read_bytes())
        if saved["format"] != FORMAT:
            raise ValueError(f"its format is {saved['format']}, but this release reads {FORMAT}")
        return [rebuild(RunEvaluation, one) for one in saved["evaluations"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("%s is ignored: %s; it will be rewritten", path, error)
        return []


def _begun(recipe: Recipe[Any], weights: Path, data: Manifest) -> RunEvaluation:
    """Return an evaluation without scores."""
    checksum, step = compute_weights_sum(weights)
    split = EvaluatedSplit(
        location=data.location,
        dataset=str(data.info["dataset"]),
        split=str(data.info["split"]),
        version=data.version,
        fingerprint=data.fingerprint,
    )
    return RunEvaluation(
        recipe=recipe.name,
        step=step,
        weights=checksum,
        release=version("maskstream"),
        commit=_commit(),
        data=split,
        scores=(),
    )


def _commit() -> str:
    """Return the commit of the checkout with this file; empty outside a checkout or without git."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
