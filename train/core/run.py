"""One call from a recipe and a folder of shards to a trained model."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, Unpack

import torch

from ...pipelines.modalities.node_cache import CACHE_GB
from .checkpoint import CHECKPOINTS
from .class_feedback import with_channel
from .data_version import version_of_run
from .distributed import process_group, world_size
from .loop import Trainer
from .recipe import Recipe
from .result import TrainResult
from .settings import LoopOptions
from .threads import compute_threads


def train_recipe(
    recipe: Recipe[Any],
    data: str | Path,
    out: str | Path,
    *,
    data_version: int | None = None,
    steps: int | None = None,
    initial: str | Path | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    workers: int = 0,
    threads: int | None = None,
    cache: str | Path | None = None,
    cache_gb: float = CACHE_GB,
    **options: Unpack[LoopOptions],
) -> TrainResult:
    """Trains `recipe` on the split in `data` and writes the run into `out`; see `maskstream.train.train`.

    A run whose checkpoint names an earlier version of the split, to which samples were added since, goes on with that.
    The run's length is known before its loader is made, since masks and batches may change over the run.
    """
    with process_group(device) as own, compute_threads(own):
        recipe = with_channel(recipe)
        version = (
            version_of_run(Path(out) / CHECKPOINTS, data, data_version) if options.get("resume", True) else data_version
        )
        planned = recipe.run_length(data, world_size=world_size(), version=version) if steps is None else steps
        opened = recipe.loader(
            data,
            version=version,
            steps=max(planned, 1) * recipe.accumulate,
            seed=seed,
            device=own,
            workers=workers,
            threads=threads,
            cache=cache,
            cache_gb=cache_gb,
        )
        with closing(opened) as loader:
            trainer = Trainer(recipe, loader, out, steps=planned, initial=initial, seed=seed, device=own, **options)
            return trainer.run()
