"""One call from a recipe and a folder of shards to a trained model."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...pipelines.stream.loader import Loader
from ..recipes import Recipe, check_modality, named_recipe
from .distributed import process_group
from .loop import Trainer, TrainResult
from .threads import compute_threads


def train(
    recipe: str | Recipe,
    data: str | Path,
    out: str | Path,
    *,
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

    steps: length of the run (the recipe's by default). initial: a model.safetensors to begin with; of it the weights
    are taken that the model has under the same names and in the same shapes, such as those of a pre-training.
    batch_size: samples per rank instead of the recipe's. seed: of the weights, the order, the crops and the masks.
    workers, threads: the loader's. compile_model: torch.compile; by default on CUDA only, where the minute that it
    takes pays. save_every: steps from one checkpoint to the next. See `Trainer` for what is written, for resuming, and
    for errors. Started by torchrun it trains on all ranks.
    """
    chosen = named_recipe(recipe) if isinstance(recipe, str) else recipe
    check_modality(chosen, data)
    if batch_size is not None:
        chosen = replace(chosen, batch_size=batch_size)
    with process_group(device) as own, compute_threads(own), ExitStack() as opened:

        def loader_of(run_steps: int | None) -> Loader[Any]:
            return opened.enter_context(
                closing(
                    chosen.build_loader(data, seed=seed, device=own, workers=workers, threads=threads, steps=run_steps)
                )
            )

        planned = chosen.schedule.steps if steps is None else steps
        if planned is None:
            planned = chosen.schedule.total_steps(len(loader_of(None)))
        loader = loader_of(max(planned, 1))
        trainer = Trainer(
            chosen,
            loader,
            out,
            steps=planned,
            initial=initial,
            seed=seed,
            device=own,
            compile_model=own.type == "cuda" if compile_model is None else compile_model,
            save_every=save_every,
            resume=resume,
            progress=progress,
        )
        return trainer.run()
