"""Fine-tuning of a run, in the loop of all recipes, and what it reaches on a test."""

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
"""What is tuned otherwise than by the labels of samples, by the models' configs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuned:
    """A finished fine-tuning. metric, value: the first of `scores`, such as accuracy, on `test` samples. majority: that
    of a predictor that did not train, such as the most frequent class. trained: what the loop says of its run. step: of
    the weights that were tested. confusion: of how many samples of a class (row) the model says each (column), int64
    (classes, classes); None where samples have several labels or none.
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
        """The result as JSON."""
        own = {name: getattr(self, name) for name in ("metric", "value", "majority", "classes", "test")}
        scores = [asdict(one) for one in self.scores]
        told = {"steps": self.trained.step, "step": self.step, "loss": self.trained.loss, "scores": scores}
        return {**own, **told, **({} if self.confusion is None else {"confusion": self.confusion.tolist()})}


def tune(run: str | Path, train: SplitLocation, *, points: str = "") -> Tuning:
    """How a run is fine-tuned on a split: by the labels of samples, of each point, or as its paper does.

    points: the column of a cloud with the label of each point, such as "part". ValueError if there is no such way.
    """
    base, split = run_recipe(Path(run)), Manifest.load(train)
    check_modality(base, split)
    own = TUNINGS.get(type(base.model))
    found = None if own is None else own(base, split, points)
    if found is None and points:
        raise ValueError(f"the model of {base.name} learns no labels of points; give a run of a pointmae recipe")
    return tune_classifier(base, split) if found is None else found


@takes_fields(FineTuneOptions)
def finetune(
    run: str | Path,
    train: SplitLocation,
    test: SplitLocation,
    out: str | Path,
    options: FineTuneOptions,
) -> FineTuned | None:
    """Fine-tunes the encoder of `run` on `train`, in the folder `out`, and measures it on `test`.

    The fields of `FineTuneOptions` may be given as keyword arguments. Without same_split it is a ValueError if test has
    samples of `train` or of the run's split, or val of `train`. Returns None if it was stopped by a signal; the same
    call continues. For errors see `maskstream.train.train`.
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
            f"patience={options.patience} counts validations, and there are none; give val, a held-out split"
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
    return FineTuned(
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
    """The recipe with weights of classes that make up for how many samples each has in the split."""
    model = recipe.model
    if not isinstance(model, LabelsConfig):
        raise ValueError(f"a {type(model).__name__} has no weights of classes; leave balanced out")
    return replace(recipe, model=replace(model, class_weights=compute_balanced_weights(train.label, model.classes)))


def _validation(
    tuning: Tuning, recipe: Recipe[Any], train: Manifest, val: Manifest, options: FineTuneOptions
) -> Validation:
    """The first score on a held-out split, of which the run may have seen the samples, as it has those of `train`."""
    about = {"location": val.location, "version": val.version, "fingerprint": val.fingerprint}
    return Validation(
        measure=lambda model: tuning.measure(model, recipe, train, val, CPU).scores,
        every=options.every,
        patience=options.patience,
        data=about,
    )


def _tell_rate(recipe: Recipe[Any]) -> None:
    """Says so if the rate of a classifier, which is for 256 samples, is much smaller with as many as a step has."""
    samples, rate = recipe.batch_size * recipe.accumulate * world_size(), recipe.schedule.base_lr
    if isinstance(recipe.model, LabelsConfig) and samples < 256 and rank() == 0:
        log.warning(
            "the learning rate is %.2g: base_lr=%g is for 256 samples a step, and this run has %d; few steps learn "
            "more with --set schedule.base_lr=%.2g, which makes it %g",
            *(rate * samples / 256, rate, samples, rate * 256 / samples, rate),
        )


def _write_encoder(tuning: Tuning, run: Path, out: Path) -> Path:
    """A file in `out` with the weights to begin with, which says what they were trained on."""
    weights = {name: own.contiguous() for name, own in tuning.initial(load_model(run_weights(run))).items()}
    out.mkdir(parents=True, exist_ok=True)
    told = json.dumps([*list_splits_trained_on(run)])
    publish(out / ENCODER, pack_weights(weights, {"format": "pt", TRAINED_ON: told}))
    return out / ENCODER
