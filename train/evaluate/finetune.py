"""Fine-tuning: the encoder of a run is trained further, with labels, by the same loop as a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from maskstream.pipelines.modalities.fields import LABELS
from maskstream.shards.config import Json, with_set
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.shards.stores.publish import publish
from maskstream.train.core.export import load_model
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.process import compute_threads
from maskstream.train.core.recipe import Recipe, check_modality
from maskstream.train.core.results import TrainResult
from maskstream.train.core.run import train_recipe
from maskstream.train.core.run_folder import MODEL, run_recipe, run_weights
from maskstream.train.nn.masked_autoencoder import AutoencoderConfig

from .classifier import Classifier, ClassifierConfig
from .features import has_label_lists, labelled_batches, plain
from .scores import majority, score

ENCODER = "encoder.safetensors"
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuned:
    """A finished fine-tuning. metric: accuracy or mAP, of `value` on `test` samples; majority: that of a guess that
    knows only the frequencies of the classes. trained: what the loop says of its run.
    """

    metric: str
    value: float
    majority: float
    classes: int
    test: int
    trained: TrainResult

    def to_dict(self) -> Json:
        """The result as JSON."""
        own = {name: getattr(self, name) for name in ("metric", "value", "majority", "classes", "test")}
        return {**own, "steps": self.trained.step, "loss": self.trained.loss}


def classifier_recipe(run: str | Path, train: str | Path, set: Sequence[str] = ()) -> Recipe[Any]:
    """The recipe that fine-tunes the encoder of a run on the labels of a split; set: fields of it to change.

    50 epochs of AdamW with a learning rate of 1e-3 per 256 samples that decays by 0.75 from block to block, betas (0.9,
    0.999) and a weight decay of 0.05, as VideoMAE's fine-tuning. ValueError if the run's model is no masked
    autoencoder, or the split has fewer than two classes.
    """
    base = run_recipe(Path(run))
    check_modality(base, train)
    if not isinstance(base.model, AutoencoderConfig):
        raise ValueError(
            f"the model of {base.name} is a {type(base.model).__name__}, which cannot be fine-tuned; give a run of a "
            "masked autoencoder, such as mae, videomae and audiomae recipes train"
        )
    several = has_label_lists(train)
    classes = len(read_dataset_json(train)["label_names"])
    model: ClassifierConfig[Any] = ClassifierConfig(of=base.model, classes=classes, several=several)
    changed: Any = {"fields": (LABELS,)} if several else {}
    changed |= {"views": 1} if "views" in {f.name for f in fields(base.data)} else {}
    recipe: Recipe[Any] = Recipe(
        name=f"{base.name}-classifier",
        batch_size=base.batch_size,
        data=replace(base.data, **changed),
        model=model,
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.05, max_grad_norm=1.0, layer_decay=0.75),
        schedule=ScheduleConfig(base_lr=1e-3, min_lr=1e-6, warmup=0.1, epochs=50),
    )
    return with_set(recipe, list(set))


def finetune(
    run: str | Path,
    train: str | Path,
    test: str | Path,
    out: str | Path,
    *,
    set: Sequence[str] = (),
    steps: int | None = None,
    scratch: bool = False,
    seed: int = 0,
    device: torch.device,
    save_every: int = 500,
    resume: bool = True,
    progress: bool = True,
) -> FineTuned | None:
    """Fine-tunes the encoder of `run` on `train`, in the folder `out`, and measures it on `test`.

    set: fields of `classifier_recipe` to change. scratch: the encoder begins with initial weights instead, for
    comparison. Returns None if it was stopped by a signal; the same call continues. For other arguments and for errors
    see `maskstream.train.train`.
    """
    recipe = classifier_recipe(run, train, set)
    check_modality(recipe, test)
    if (names := read_dataset_json(test)["label_names"]) != read_dataset_json(train)["label_names"]:
        raise ValueError(f"{test} has {len(names)} classes, not those of {train}; give two splits with the same names")
    initial = None if scratch else _encoder_of(Path(run), Path(out))
    trained = train_recipe(
        recipe,
        train,
        out,
        steps=steps,
        initial=initial,
        seed=seed,
        device=device,
        compile="no",
        save_every=save_every,
        resume=resume,
        progress=progress,
    )
    if not trained.finished:
        return None
    return _measured(recipe, trained, train, test, device)


def _encoder_of(run: Path, out: Path) -> Path:
    """A file in `out` with the weights of the run's encoder."""
    encoder = load_model(run_weights(run)).get_submodule("encoder")
    weights = {f"encoder.{name}": tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    out.mkdir(parents=True, exist_ok=True)
    publish(out / ENCODER, save(weights, metadata={"format": "pt"}))
    return out / ENCODER


@torch.no_grad()
def _measured(
    recipe: Recipe[Any], trained: TrainResult, train: str | Path, test: str | Path, device: torch.device
) -> FineTuned:
    model, config = load_model(trained.out / MODEL).to(device), recipe.model
    if not isinstance(model, Classifier) or not isinstance(config, ClassifierConfig):
        raise ValueError(f"{trained.out} holds no classifier; give another folder for the fine-tuning")
    data, whole = plain(recipe.data, train), 1 << 62
    scores, labels = [], []
    with compute_threads(device):
        for batch, rows, own in labelled_batches(data, test, size=_AT_ONCE, samples=whole, several=config.several):
            scores.append(model.scores(batch.to(device)).cpu()[rows])
            labels.append(own)
        found, true = torch.cat(scores), torch.cat(labels)
        known = torch.cat(
            [own for _, _, own in labelled_batches(data, train, size=_AT_ONCE, samples=1000, several=config.several)]
        )
    return FineTuned(
        metric="mAP" if config.several else "accuracy",
        value=score(found, true),
        majority=majority(known, true, config.classes),
        classes=config.classes,
        test=len(true),
        trained=trained,
    )
