"""Fine-tunes a run in the training loop of all recipes, and tests the result."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from maskstream.pipelines.stream.topology import usable_device
from maskstream.shards.config import Json, with_set
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.keywords import takes_fields
from maskstream.shards.progress import Progress
from maskstream.shards.stores.local_files import publish

from .core.distributed import rank, world_size
from .core.options import FineTuneOptions
from .core.process import CPU, compute_threads
from .core.recipe import Recipe, check_modality
from .core.results import TrainResult
from .core.run import train_recipe
from .core.run_folder import MODEL, run_recipe, run_weights
from .core.validation import BEST, Validation
from .core.weights import compute_weights_sum, load_model, pack_weights
from .evaluate.classifier import Tune, Tuning, tune_classifier
from .evaluate.evaluation import Score
from .evaluate.features import match_labels
from .evaluate.labels import LabelsConfig, compute_balanced_weights
from .evaluate.unseen import TRAINED_ON, check_unseen, list_splits_trained_on
from .papers import tables

log = logging.getLogger(__name__)

ENCODER = "encoder.safetensors"
TUNINGS: Mapping[type, Tune] = {kind: tune for table in tables("finetune", "TUNINGS") for kind, tune in table.items()}
"""Model configs that are not fine-tuned on labels of samples, with their tuning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuneResult:
    """The result of a finished fine-tuning.

    Attributes:
        metric: Name of the first of `scores`, such as "accuracy".
        value: Value of that score.
        majority: The same score of an untrained predictor, such as the most frequent class.
        classes: Number of classes.
        test: Number of test samples.
        trained: Result of the training run.
        step: Step of the tested weights.
        scores: All scores.
        confusion: int64 (classes, classes): the number of samples of each class (row) that the model assigns to each
            class (column); None if samples have several labels or none.
    """

    metric: str
    value: float
    majority: float
    classes: int
    test: int
    trained: TrainResult
    step: int
    scores: tuple[Score, ...] = ()
    confusion: Tensor | None = None

    def to_dict(self) -> Json:
        """Return the result as JSON."""
        own = {name: getattr(self, name) for name in ("metric", "value", "majority", "classes", "test")}
        scores = [asdict(one) for one in self.scores]
        told = {"steps": self.trained.step, "step": self.step, "loss": self.trained.loss, "scores": scores}
        return {**own, **told, **({} if self.confusion is None else {"confusion": self.confusion.tolist()})}


def tune(run: str | Path, train: SplitLocation, *, points: str = "") -> Tuning:
    """Return how a run is fine-tuned on a split: by labels of samples or points, or as in its paper.

    Args:
        run: Folder of the run.
        train: Location of the labelled split.
        points: Column of a point cloud with the label of each point, such as "part".

    Raises:
        ValueError: The run's model cannot be fine-tuned on labels of points.
    """
    base, split = run_recipe(Path(run)), Manifest.load(train)
    check_modality(base, split)
    own = TUNINGS.get(type(base.model))
    found = None if own is None else own(base, split, points)
    if found is None and points:
        raise ValueError(f"the model of {base.name} does not learn point labels; pass a run of a pointmae recipe")
    return tune_classifier(base, split) if found is None else found


@takes_fields(FineTuneOptions)
def finetune(
    run: str | Path,
    train: SplitLocation,
    test: SplitLocation,
    out: str | Path,
    options: FineTuneOptions,
) -> FineTuneResult | None:
    """Fine-tune the encoder of a run and test it.

    Args:
        run: Folder of the pre-training run.
        train: Location of the labelled split to train on.
        test: Location of the split to test on.
        out: Folder of the fine-tuning run.
        options: The fields of `FineTuneOptions`. Without same_split, test samples must not be in `train` or the run's
            split, and `val` samples must not be in `train`.

    Returns:
        The result; None if a signal stopped the run. The same call then continues it.

    Raises:
        ValueError: Splits share samples; see `maskstream.train.train` for other errors.
    """
    device = usable_device(options.device)
    train, test, val = Manifest.load(train), Manifest.load(test), options.val
    held_out = None if val is None else Manifest.load(val)
    tuning = tune(run, train, points=options.points)
    recipe: Recipe[Any] = with_set(tuning.recipe, options.set)
    if options.balanced:
        recipe = _balance(recipe, train)
    names = train.label_names
    for split in (test, *(() if held_out is None else (held_out,))):
        check_modality(recipe, split)
    test = match_labels(test, names, str(train))
    held_out = None if held_out is None else match_labels(held_out, names, str(train))
    check_unseen(test, runs=[Path(run)], train=train, same_split=options.same_split)
    validation = None
    if held_out is not None:
        check_unseen(held_out, train=train, same_split=options.same_split)
        validation = _validation(tuning, recipe, train, held_out, options)
    elif options.patience is not None:
        raise ValueError(
            f"patience={options.patience} counts validations, but there are none; pass val, a validation split"
        )
    if recipe.schedule.base_lr == tuning.recipe.schedule.base_lr:
        _tell_rate(recipe)
    initial = None if options.scratch else _write_encoder(tuning, Path(run), Path(out))
    trained = train_recipe(recipe, train, out, replace(options, device=device), initial=initial, validation=validation)
    if not trained.finished:
        return None
    if isinstance(shown := options.progress, Progress):
        shown.phase(f"testing on {test.location}")
    weights = trained.out / (MODEL if val is None else BEST)
    with compute_threads(device):
        tested = tuning.measure(load_model(weights).to(device), recipe, train, test, device)
    first = tested.scores[0]
    return FineTuneResult(
        metric=first.name,
        value=first.value,
        majority=next(iter(first.baselines.values())),
        classes=len(names),
        test=first.count,
        trained=trained,
        step=compute_weights_sum(weights)[1],
        scores=tested.scores,
        confusion=tested.confusion,
    )


def _balance(recipe: Recipe[Any], train: Manifest) -> Recipe[Any]:
    """Return the recipe with class weights that compensate for the number of samples per class in the split."""
    model = recipe.model
    if not isinstance(model, LabelsConfig):
        raise ValueError(f"a {type(model).__name__} does not support class weights; leave out balanced")
    return replace(recipe, model=replace(model, class_weights=compute_balanced_weights(train.label, model.classes)))


def _validation(
    tuning: Tuning, recipe: Recipe[Any], train: Manifest, val: Manifest, options: FineTuneOptions
) -> Validation:
    """Return the validation by the first score on a held-out split. The pre-training run may have seen its samples."""
    about = {"location": val.location, "version": val.version, "fingerprint": val.fingerprint}
    return Validation(
        measure=lambda model: tuning.measure(model, recipe, train, val, CPU).scores,
        every=options.every,
        patience=options.patience,
        data=about,
    )


def _tell_rate(recipe: Recipe[Any]) -> None:
    """Warn if a classifier's learning rate, set for 256 samples, is much lower at the run's batch size."""
    samples, rate = recipe.batch_size * recipe.accumulate * world_size(), recipe.schedule.base_lr
    if isinstance(recipe.model, LabelsConfig) and samples < 256 and rank() == 0:
        log.warning(
            "the learning rate is only %.2g, because base_lr=%g is for 256 samples per step and this run has %d; "
            "with few steps, --set schedule.base_lr=%.2g learns more, which makes it %g",
            *(rate * samples / 256, rate, samples, rate * 256 / samples, rate),
        )


def _write_encoder(tuning: Tuning, run: Path, out: Path) -> Path:
    """Write the initial weights to a file in `out`, with the splits that they were trained on."""
    weights = {name: own.contiguous() for name, own in tuning.initial(load_model(run_weights(run))).items()}
    out.mkdir(parents=True, exist_ok=True)
    told = json.dumps([*list_splits_trained_on(run)])
    publish(out / ENCODER, pack_weights(weights, {"format": "pt", TRAINED_ON: told}))
    return out / ENCODER
