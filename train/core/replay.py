"""Any step of a run again: its batches, made from the run's settings and the split alone.

A batch is a function of (split, seed, position), so no batch is stored: a run's folder says the settings, its newest
checkpoint what they are compared with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from maskstream.pipelines.modalities.split import open_manifest
from maskstream.pipelines.stream.batch import Batch
from maskstream.shards.checksummed import read_checksummed
from maskstream.shards.config import Json
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.stores.url import local_path

from .checkpoint import CHECKPOINTS, STATE, list_checkpoints
from .metrics import StepMetrics
from .recipe import Recipe, check_modality, find_channels, with_channel
from .run_folder import DATA, run_recipe, run_settings
from .sample_losses import AROUND


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """A step of a run: its batches, one for each accumulated one.

    step: from 1. epoch, batch: the position of its first batch, from 0. replaced: the samples that are unusable now, in
    whose place others stand. manifest: the split that they come from.
    """

    step: int
    epoch: int
    batch: int
    batches: Sequence[Batch]
    replaced: int
    manifest: Manifest
    recipe: Recipe[Any]


def replay(
    run: str | Path,
    step: int,
    *,
    data: SplitLocation | None = None,
    version: int | None = None,
    rank: int | None = None,
    threads: int | None = None,
) -> Replayed:
    """Makes the batches of a step of the run in the folder `run` again, on the CPU, with whatever topology it had.

    data: where the split is now, by default where the run read it. version: by default the one that the run read last.
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
    manifest = _opened(folder, settings, data, version)
    check_modality(recipe, manifest)
    world = 1 if rank is None else ranks
    loader = recipe.loader(
        manifest,
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
        state = _newest_state(folder)
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
        manifest=manifest,
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


def _opened(folder: Path, settings: Json, data: SplitLocation | None, version: int | None) -> Manifest:
    told = settings.get(DATA)
    if not isinstance(told, Mapping) or not {"location", "version"} <= told.keys():
        raise ValueError(
            f"{folder} does not say which split it was trained on, as a run on a loader of your own; move that loader "
            "with loader.seek(epoch, batch) instead"
        )
    return open_manifest(data or str(told["location"]), version=int(told["version"]) if version is None else version)


def _newest_state(folder: Path) -> Mapping[str, Any] | None:
    """The state of the newest checkpoint whose state is whole; None if there is none."""
    for checkpoint in list_checkpoints(folder / CHECKPOINTS):
        with suppress(OSError, ValueError):
            return read_checksummed((checkpoint / STATE).read_bytes())
    return None


def _number(folder: Path, settings: Json, name: str) -> int:
    value = settings.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{folder / 'run.json'} has no number {name}; give a run of this release")
    return value
