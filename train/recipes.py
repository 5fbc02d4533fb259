"""Recipes by name, each a function that returns a frozen config, and training with some of its fields changed.

A new recipe is a function in its paper's recipe.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskstream.pipelines.modalities.mixture import DataMixture
from maskstream.shards.config import with_set
from maskstream.shards.format.manifest import Manifest, join_label_names
from maskstream.shards.keywords import takes_fields
from maskstream.shards.named import named

from .core.data import tell_split
from .core.hook import Hook
from .core.options import TrainOptions
from .core.recipe import Recipe, check_modality
from .core.results import TrainResult
from .core.run import train_recipe
from .core.validation import Validation
from .papers import list_recipes

RECIPES = list_recipes()
"""The recipes of all papers by name."""


def named_recipe(name: str) -> Recipe[Any]:
    """Return the recipe with a name in RECIPES, or the one that a function `package.module:name` returns.

    Raises:
        ValueError: The name is unknown.
    """
    return named(name, RECIPES, "recipe")()


def chosen_recipe(
    recipe: str | Recipe[Any], set: Sequence[str] = (), *, batch_size: int | None = None, accumulate: int | None = None
) -> Recipe[Any]:
    """Return a recipe with some fields changed, such as "model.depth=6" or "mask.ratio=0.8".

    Args:
        recipe: A recipe or its name.
        set: Fields to change, as "path=value".
        batch_size: Samples per rank and step; None keeps the recipe's.
        accumulate: Batches per rank and step; None keeps the recipe's.

    Raises:
        ValueError: A name or field is unknown (the nearest known one is suggested), or a value does not fit.
    """
    chosen = named_recipe(recipe) if isinstance(recipe, str) else recipe
    numbers = {"batch_size": batch_size, "accumulate": accumulate}
    given = [f"{name}={value}" for name, value in numbers.items() if value is not None]
    return with_set(chosen, [*set, *given], where="print all fields with --print-config")


@takes_fields(TrainOptions)
def train(
    recipe: str | Recipe[Any],
    data: str | Path | DataMixture,
    out: str | Path,
    options: TrainOptions,
) -> TrainResult:
    """Train a recipe on a split or a mixture and write the run into a folder.

    If torchrun started the process, all ranks train together. See `Trainer` for the files written, for resuming and for
    errors.

    Args:
        recipe: A name in RECIPES, or a `Recipe`.
        data: Folder or URL of a split, or a `DataMixture` of several, whose samples share batches
            (docs/training.md#several-splits).
        out: Folder of the run.
        options: The fields of `TrainOptions`, such as steps=100 or set=["model.depth=6"].

    Returns:
        The result of the run.
    """
    chosen = chosen_recipe(recipe, options.set, batch_size=options.batch_size, accumulate=options.accumulate)
    return train_recipe(
        chosen,
        data,
        out,
        options,
        data_version=options.data_version,
        initial=options.initial,
        validation=None if options.val is None else _make_validation(chosen, data, options.val, options),
        hooks=() if options.probe is None else [_probe(chosen, data, options.probe, options.probe_every)],
    )


def _probe(recipe: Recipe[Any], data: str | Path | DataMixture, labelled: str | Path, every: int) -> Hook:
    """Build the probe on the split `labelled`; raise ValueError if it has another modality or no labels."""
    from .evaluate.online import OnlineProbe

    split = Manifest.load(labelled)
    check_modality(recipe, split)
    return OnlineProbe.of(recipe.data, _list_splits(data)[0], split, every=every)


def _make_validation(
    recipe: Recipe[Any], data: str | Path | DataMixture, val: str | Path, options: TrainOptions
) -> Validation:
    """Build the validation on the split `val`; raise ValueError if it has another modality or training samples."""
    from .evaluate.features import match_labels
    from .evaluate.unseen import check_unseen
    from .evaluate_run import evaluate_model  # imports the evaluations of all papers

    split = Manifest.load(val)
    check_modality(recipe, split)
    trained = _list_splits(data)
    for train in trained:
        check_unseen(split, train=train, same_split=options.same_split)
    if recipe.model.most_labels is not None:
        split = match_labels(split, join_label_names(trained), "the training data")
    return Validation(
        measure=lambda model: evaluate_model(recipe, model, split, 2).scores,
        every=options.every,
        best=options.best,
        data=tell_split(split),
    )


def _list_splits(data: str | Path | DataMixture) -> list[Manifest]:
    if not isinstance(data, DataMixture):
        return [Manifest.load(data)]
    return [Manifest.load(source.data, version=source.data_version) for source in data.sources]


__all__ = ["RECIPES", "Recipe", "chosen_recipe", "named_recipe", "train"]
