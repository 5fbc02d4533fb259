"""Fine-tuning of a run, in the loop of all recipes, and what it reaches on a test."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

import torch
from safetensors.torch import save

from maskstream.shards.config import Json, with_set
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.stores.local_files import publish

from .core.distributed import rank, world_size
from .core.export import load_model
from .core.process import LoopOptions, compute_threads
from .core.recipe import Recipe, check_modality
from .core.results import TrainResult
from .core.run import train_recipe
from .core.run_folder import MODEL, run_recipe, run_weights
from .evaluate.evaluation import Score
from .evaluate.finetune import LabelsConfig, Tune, Tuning, tune_classifier
from .evaluate.unseen import TRAINED_ON, check_unseen, splits_trained_on
from .papers import tables

log = logging.getLogger(__name__)

ENCODER = "encoder.safetensors"
TUNINGS: Mapping[type, Tune] = {kind: tune for table in tables("finetune", "TUNINGS") for kind, tune in table.items()}
"""What is tuned otherwise than by the labels of samples, by the models' configs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuned:
    """A finished fine-tuning. metric, value: the first of `scores`, such as accuracy, on `test` samples. majority: that
    of a predictor that did not train, such as the most frequent class. trained: what the loop says of its run.
    """

    metric: str
    value: float
    majority: float
    classes: int
    test: int
    trained: TrainResult
    scores: tuple[Score, ...] = ()

    def to_dict(self) -> Json:
        """The result as JSON."""
        own = {name: getattr(self, name) for name in ("metric", "value", "majority", "classes", "test")}
        scores = [asdict(one) for one in self.scores]
        return {**own, "steps": self.trained.step, "loss": self.trained.loss, "scores": scores}


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


def finetune(
    run: str | Path,
    train: SplitLocation,
    test: SplitLocation,
    out: str | Path,
    *,
    set: Sequence[str] = (),
    points: str = "",
    steps: int | None = None,
    scratch: bool = False,
    seed: int = 0,
    device: torch.device,
    same_split: bool = False,
    **options: Unpack[LoopOptions],
) -> FineTuned | None:
    """Fine-tunes the encoder of `run` on `train`, in the folder `out`, and measures it on `test`.

    set: fields of the recipe (`tune`) to change. points: the column of a cloud with the label of each point, for part
    segmentation. scratch: the encoder begins with initial weights instead, for comparison. same_split: test on what was
    trained on too; else a test with samples that `train` or the run has is a ValueError. options: of the loop; nothing
    is compiled by default. Returns None if it was stopped by a signal; the same call continues. For other arguments and
    for errors see `maskstream.train.train`.
    """
    train, test = Manifest.load(train), Manifest.load(test)
    tuning = tune(run, train, points=points)
    recipe: Recipe[Any] = with_set(tuning.recipe, list(set))
    check_modality(recipe, test)
    if (names := test.info["label_names"]) != train.info["label_names"]:
        raise ValueError(f"{test} has {len(names)} classes, not those of {train}; give two splits with the same names")
    check_unseen(test, runs=[Path(run)], train=train, same_split=same_split)
    if recipe.schedule.base_lr == tuning.recipe.schedule.base_lr:
        _tell_rate(recipe)
    initial = None if scratch else _write_encoder(tuning, Path(run), Path(out))
    options.setdefault("compile", "no")
    trained = train_recipe(recipe, train, out, steps=steps, initial=initial, seed=seed, device=device, **options)
    if not trained.finished:
        return None
    with compute_threads(device):
        scores = tuning.measure(load_model(trained.out / MODEL).to(device), recipe, train, test, device)
    first = scores[0]
    return FineTuned(
        metric=first.name,
        value=first.value,
        majority=next(iter(first.baselines.values())),
        classes=len(names),
        test=first.count,
        trained=trained,
        scores=scores,
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
    told = json.dumps([*splits_trained_on(run)])
    publish(out / ENCODER, save(weights, metadata={"format": "pt", TRAINED_ON: told}))
    return out / ENCODER
