"""Training a recipe that is named, with fields of it set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..shards.config import with_set
from .core.loop import TrainResult
from .core.recipe import Recipe
from .core.run import train_recipe
from .recipes import check_modality, named_recipe


def chosen_recipe(recipe: str | Recipe[Any], set: Sequence[str] = (), *, batch_size: int | None = None) -> Recipe[Any]:
    """A recipe by name (or itself) with fields set, such as "model.depth=6" or "mask.ratio=0.8".

    ValueError for a name or a field that is not there, with the nearest that is, and for a value that does not fit.
    """
    chosen = named_recipe(recipe) if isinstance(recipe, str) else recipe
    return with_set(chosen, [*set, *([] if batch_size is None else [f"batch_size={batch_size}"])])


def train(
    recipe: str | Recipe[Any],
    data: str | Path,
    out: str | Path,
    *,
    set: Sequence[str] = (),
    steps: int | None = None,
    initial: str | Path | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    workers: int = 0,
    threads: int | None = None,
    compile_model: bool | None = None,
    save_every: int = 500,
    resume: bool = True,
    progress: bool = True,
) -> TrainResult:
    """Trains `recipe` (a name of RECIPES, or a Recipe) on the split in `data` and writes the run into `out`.

    set: fields of the recipe instead of its own, such as "model.depth=6". steps: length of the run (the recipe's by
    default). initial: a model.safetensors to begin with; of it the weights are taken that the model has under the same
    names and in the same shapes, such as those of a pre-training. batch_size: samples per rank instead of the recipe's.
    seed: of the weights, the order, the crops and the masks. workers, threads: the loader's. compile_model:
    torch.compile; by default on CUDA only, where the minute that it takes pays. save_every: steps from one checkpoint
    to the next. See `Trainer` for what is written, for resuming, and for errors. Started by torchrun it trains on all
    ranks.
    """
    chosen = chosen_recipe(recipe, set, batch_size=batch_size)
    check_modality(chosen, data)
    return train_recipe(
        chosen,
        data,
        out,
        steps=steps,
        initial=initial,
        seed=seed,
        device=device,
        workers=workers,
        threads=threads,
        compile_model=compile_model,
        save_every=save_every,
        resume=resume,
        progress=progress,
    )
