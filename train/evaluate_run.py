"""Evaluates the model of a run on a split, and keeps the numbers in the run's folder as evaluation.json.

The file is one object: `format`, which is 1, and `evaluations`, one for each split, of the run's newest weights. Its
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
"""The evaluations by the models' configs: what papers share (MAE and DMAE; AVSiam), fine-tuning, and papers' own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedSplit:
    """Which samples were measured: the folder of a split, its dataset and name, and its version with the fingerprint of
    its samples.
    """

    location: str
    dataset: str
    split: str
    version: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEvaluation:
    """What a run reaches on a split. step: of the weights, and their checksum. release, commit: of this package; the
    commit is empty where it does not run from a checkout.
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
        """Whether the other is of the same weights and samples by the same code."""
        return replace(self, scores=(), notes={}) == replace(other, scores=(), notes={})


def evaluate_model(recipe: Recipe[Any], model: Model[Any], data: Manifest, shown: int) -> Evaluation:
    """The evaluation of a trained model, in eval mode, with `shown` examples of the split at `data`.

    ValueError for a recipe whose kind of model has none.
    """
    for kind in type(recipe.model).__mro__:
        if kind in EVALUATIONS:
            return EVALUATIONS[kind](model, recipe.data.elsewhere(), data, shown)
    raise ValueError(
        f"there is no evaluation of a {type(recipe.model).__name__}; add it to EVALUATIONS of its paper's evaluate.py"
    )


def evaluate_run(
    run: str | Path,
    data: SplitLocation,
    *,
    recipe: Recipe[Any] | None = None,
    again: bool = False,
    same_split: bool = False,
) -> RunEvaluation:
    """The numbers of the run in the folder `run` on the split at `data`, best one for validation.

    They are taken from the run's evaluation.json if it has those of the same weights, samples and code; else they are
    measured on the CPU and kept there. again: measure anyway. recipe: the run's own, if run.json holds none.
    same_split: on what the run was trained on too.

    ValueError where the folder is not that of a run, its kind of model has no evaluation, or the split has samples that
    it was trained on; ShardError where `data` holds no finished split.
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
    """Adds the numbers of an evaluation of a run's `weights` on the split at `data` to its evaluation.json.

    Those of other weights or an earlier one of the split go. A folder that cannot be written is a warning.
    """
    made = replace(_begun(recipe, weights, data), scores=found.scores, notes=found.notes)
    others = [
        one for one in read_evaluations(run) if one.weights == made.weights and one.data.location != made.data.location
    ]
    text = json.dumps({"format": FORMAT, "evaluations": [asdict(one) for one in (*others, made)]}, indent=2)
    try:
        publish(run / KEPT, f"{text}\n".encode())
    except OSError as error:
        log.warning("%s cannot be kept (%s)", run / KEPT, error.strerror or error)
    return made


def read_evaluations(run: Path) -> Sequence[RunEvaluation]:
    """What a run's evaluation.json has; nothing where there is none. A damaged file is a warning."""
    path = run / KEPT
    if not path.is_file():
        return []
    try:
        saved = json.loads(path.read_bytes())
        if saved["format"] != FORMAT:
            raise ValueError(f"its format is {saved['format']}, and this release reads {FORMAT}")
        return [rebuild(RunEvaluation, one) for one in saved["evaluations"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("%s is not used: %s; it is written anew", path, error)
        return []


def _begun(recipe: Recipe[Any], weights: Path, data: Manifest) -> RunEvaluation:
    """An evaluation that has no numbers yet."""
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
    """The commit of the checkout that this file lies in; empty where it lies in none, or there is no git."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
