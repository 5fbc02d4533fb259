"""Any step of a run again: its batches, made from the run's settings and the split alone.

A batch is a function of (split, seed, position), so no batch is stored: a run's folder says the settings, its newest
checkpoint what they are compared with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

from maskstream.pipelines.modalities.mixture import RunData
from maskstream.pipelines.stream.batch import Batch
from maskstream.shards.config import Json
from maskstream.shards.format.manifest import SplitLocation
from maskstream.shards.stores.url import local_path

from .checkpoint import CHECKPOINTS
from .data import newest_state, open_data, told_mixture, told_splits
from .metrics import StepMetrics
from .recipe import Recipe, find_channels, with_channel
from .run_folder import run_recipe, run_settings
from .sample_losses import AROUND


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """A step of a run: its batches, one for each accumulated one.

    step: from 1. epoch, batch: the position of its first batch, from 0. replaced: the samples that are unusable now, in
    whose place others stand. data: the split or the mixture that they come from.
    """

    step: int
    epoch: int
    batch: int
    batches: Sequence[Batch]
    replaced: int
    data: RunData
    recipe: Recipe[Any]


def replay(
    run: str | Path,
    step: int,
    *,
    data: SplitLocation | Sequence[str | Path] | None = None,
    version: int | None = None,
    rank: int | None = None,
    threads: int | None = None,
) -> Replayed:
    """Makes the batches of a step of the run in the folder `run` again, on the CPU, with whatever topology it had.

    data: where the split is now, or all splits of a mixture, by default where the run read them. version: of one split,
    by default the one that the run read last.
    rank: the part that one rank of the run had, by default that of all. Raises ValueError for a step or rank that the
    run has not, for a mask that followed the run's own losses, and for a run on a loader of one's own; ResumeError if
    the split or the settings are not those of the run's newest checkpoint; ShardError where the split is gone.
    """
    folder = local_path(run, "the run")
    settings, recipe = run_settings(folder), run_recipe(folder)
    planned, ranks, samples = (_number(folder, settings, name) for name in ("steps", "ranks", "samples_per_step"))
    if not 1 <= step <= planned:
        raise ValueError(f"step {step}: the run in {folder} has the steps 1 to {planned}")
    if rank is not None and not 0 <= rank < ranks:
        raise ValueError(f"rank {rank}: the run in {folder} had the ranks 0 to {ranks - 1}")
    if find_channels(with_channel(recipe).data):
        raise ValueError(
            f"{recipe.name} has masks.ByClass, which follows the losses of the run; these are not recorded, so no step "
            "of it can be made again"
        )
    found = _opened(folder, recipe, data, version)
    world = 1 if rank is None else ranks
    loader = recipe.loader(
        found,
        batch_size=samples // recipe.accumulate // world,
        steps=planned * recipe.accumulate,
        seed=_number(folder, settings, "seed"),
        device="cpu",
        rank=rank or 0,
        world_size=world,
        threads=threads,
        max_bad_fraction=1.0,
    )
    with closing(loader):
        state = newest_state(folder / CHECKPOINTS)
        if state is not None:
            loader.load_state_dict(state["loader"])
        first = (0 if state is None else int(state.get("first_batch", 0))) + (step - 1) * recipe.accumulate
        epoch, batch = divmod(first, len(loader))
        loader.seek(epoch, batch)
        source = loader.repeat()
        batches = [next(source) for _ in range(recipe.accumulate)]
        replaced = loader.stats()["bad"]
    return Replayed(
        step=step,
        epoch=epoch,
        batch=batch,
        batches=batches,
        replaced=int(str(replaced)),
        data=found,
        recipe=recipe,
    )


def worst_steps(metrics: Sequence[StepMetrics], count: int) -> list[tuple[StepMetrics, float]]:
    """The `count` steps whose losses are furthest above the median of the steps around them, and by how much, the
    worst first. A loss that is not finite is the worst of all.
    """
    losses = [step.loss for step in metrics]

    def excess(at: int) -> float:
        if not math.isfinite(losses[at]):
            return math.inf
        near = [loss for loss in losses[max(at - AROUND, 0) : at + AROUND + 1] if math.isfinite(loss)]
        return losses[at] - median(near)

    found = [(metrics[at], excess(at)) for at in range(len(metrics))]
    return sorted(found, key=lambda one: -one[1])[:count]


def _opened(
    folder: Path, recipe: Recipe[Any], data: SplitLocation | Sequence[str | Path] | None, version: int | None
) -> RunData:
    """The splits that the run read last, or others in their places."""
    mixture, told = told_mixture(folder), told_splits(folder)
    if not told:
        raise ValueError(
            f"{folder} does not say which split it was trained on, as a run on a loader of your own; move that loader "
            "with loader.seek(epoch, batch) instead"
        )
    several = isinstance(data, Sequence) and not isinstance(data, str)
    if mixture is not None:
        if data is not None and not several:
            raise ValueError(f"{folder} was trained on a mixture; give the places of all {len(told)} splits, or none")
        return open_data(recipe, mixture if data is None else mixture.at(cast(Sequence[str], data)), None, version)
    if several:
        raise ValueError(f"{folder} was trained on one split, got {data}; give one")
    place = told[0]["location"] if data is None else cast(SplitLocation, data)
    return open_data(recipe, place, None, int(told[0]["version"]) if version is None else version)


def _number(folder: Path, settings: Json, name: str) -> int:
    value = settings.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{folder / 'run.json'} has no number {name}; give a run of this release")
    return value
