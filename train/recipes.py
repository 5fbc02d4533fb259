"""Recipes by name, which are functions that return one frozen config each; and the training of one with fields set.

A new recipe is a function of its paper's recipe.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import torch

from maskstream.pipelines.modalities.mixture import DataMixture
from maskstream.pipelines.modalities.split import CACHE_GB
from maskstream.shards.config import with_set
from maskstream.shards.format.manifest import Manifest, join_label_names
from maskstream.shards.named import named

from .core.data import tell_split
from .core.process import LoopOptions
from .core.recipe import Recipe, check_modality
from .core.results import TrainResult
from .core.run import LoadingSettings, train_recipe
from .core.validation import Probe, Validation
from .papers import list_recipes

RECIPES = list_recipes()
"""The recipes of all papers by name."""


def named_recipe(name: str) -> Recipe[Any]:
    """The recipe of a name in RECIPES, or the one that a function `package.module:name` returns.

    ValueError for an unknown name.
    """
    return named(name, RECIPES, "recipe")()


def chosen_recipe(
    recipe: str | Recipe[Any], set: Sequence[str] = (), *, batch_size: int | None = None, accumulate: int | None = None
) -> Recipe[Any]:
    """The recipe, given by name or as it is, with fields set, such as "model.depth=6" or "mask.ratio=0.8".

    ValueError for an unknown name or field, with the nearest known one, and for a value that does not fit.
    """
    chosen = named_recipe(recipe) if isinstance(recipe, str) else recipe
    numbers = {"batch_size": batch_size, "accumulate": accumulate}
    given = [f"{name}={value}" for name, value in numbers.items() if value is not None]
    return with_set(chosen, [*set, *given], where="print all fields with --print-config")


def train(
    recipe: str | Recipe[Any],
    data: str | Path | DataMixture,
    out: str | Path,
    *,
    set: Sequence[str] = (),
    data_version: int | None = None,
    steps: int | None = None,
    initial: str | Path | None = None,
    batch_size: int | None = None,
    accumulate: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    workers: int = 0,
    threads: int | None = None,
    cache: str | Path | None = None,
    cache_gb: float = CACHE_GB,
    val: str | Path | None = None,
    every: int = 500,
    best: str | None = None,
    same_split: bool = False,
    probe: str | Path | None = None,
    probe_every: int = 500,
    **options: Unpack[LoopOptions],
) -> TrainResult:
    """Trains `recipe` (a name of RECIPES, or a Recipe) on the split in `data` and writes the run into `out`.

    data: a folder or URL, or a `DataMixture` of several, whose samples share batches (docs/training.md#several-splits).
    set: fields of the recipe to change, such as "model.depth=6". data_version: of the split (default: the current one;
    a continued run stays with the samples that it began with). steps: the length of the run (default: the recipe's).
    initial: a model.safetensors, such as that of a pre-training, or weights of VideoMAE, MAE or BERT as transformers or
    their authors save them; weights whose names and shapes match are loaded. batch_size: samples per rank instead of
    the recipe's. accumulate: batches per rank and step instead of the recipe's. seed: decides the weights, the order,
    the crops, the masks and what the model draws. workers, threads, cache, cache_gb: of the loader. val: a split on
    which the recipe's scores are measured every `every` steps and at the end, on the CPU; the weights with the best
    score, the first or that named `best`, stay in best.safetensors. same_split: val may have samples that are trained
    on. probe: a labelled split on whose samples k-NN and a linear probe of the features are measured every
    `probe_every` steps, on the run's device (evaluate/online.py). options: of the loop, see `LoopSettings`. See
    `Trainer` for the files written, for resuming and for errors. If torchrun started the process, all ranks train
    together.
    """
    chosen = chosen_recipe(recipe, set, batch_size=batch_size, accumulate=accumulate)
    return train_recipe(
        chosen,
        data,
        out,
        data_version=data_version,
        steps=steps,
        initial=initial,
        seed=seed,
        device=device,
        loading=LoadingSettings(workers=workers, threads=threads, cache=cache, cache_gb=cache_gb),
        validation=None if val is None else _validation(chosen, data, val, every, best, same_split),
        probe=None if probe is None else _probe(chosen, data, probe, probe_every),
        **options,
    )


def _probe(recipe: Recipe[Any], data: str | Path | DataMixture, labelled: str | Path, every: int) -> Probe:
    """The probe on the split `labelled`. ValueError for one of another modality or without labels."""
    from .evaluate.online import OnlineProbe

    split = Manifest.load(labelled)
    check_modality(recipe, split)
    return OnlineProbe.of(recipe.data, _splits(data)[0], split, every=every)


def _validation(
    recipe: Recipe[Any], data: str | Path | DataMixture, val: str | Path, every: int, best: str | None, same_split: bool
) -> Validation:
    """The validation on the split `val`. ValueError for one of another modality, or with trained samples."""
    from .evaluate.features import match_labels
    from .evaluate.unseen import check_unseen
    from .evaluations import evaluate_model  # imports the evaluations of all papers

    split = Manifest.load(val)
    check_modality(recipe, split)
    trained = _splits(data)
    for train in trained:
        check_unseen(split, train=train, same_split=same_split)
    if recipe.model.most_labels is not None:
        split = match_labels(split, join_label_names(trained), "the training data")
    return Validation(
        measure=lambda model: evaluate_model(recipe, model, split, 2).scores,
        every=every,
        best=best,
        data=tell_split(split),
    )


def _splits(data: str | Path | DataMixture) -> list[Manifest]:
    if not isinstance(data, DataMixture):
        return [Manifest.load(data)]
    return [Manifest.load(source.data, version=source.data_version) for source in data.sources]


__all__ = ["RECIPES", "Recipe", "chosen_recipe", "named_recipe", "train"]
