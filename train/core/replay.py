"""Recreates the batches of any step of a run from the run's settings and the split.

A batch is a pure function of (split, seed, position), so no batch is stored. The run's folder has the settings, the
versions of the split by step (versions.py), and a checkpoint that both are compared with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np

from maskstream.pipelines.modalities.mixture import OpenMixture, RunData, list_manifests
from maskstream.pipelines.modalities.split import open_manifest_of_state
from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.loader import DATASET_VERSION, Loader
from maskstream.shards.config import Json
from maskstream.shards.errors import ResumeError, SampleError, ShardError
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.format.rejects import is_erased_key
from maskstream.shards.stores.url import get_local_path

from .checkpoint import CHECKPOINTS
from .data import find_newest_state, open_data, read_mixture, read_splits
from .metrics import StepMetrics
from .recipe import Recipe, check_modality, find_channels, with_channel
from .run_folder import run_recipe, run_settings
from .sample_losses import AROUND
from .versions import SeenSplit, find_splits_at

UNRECORDED = (
    "The run did not record the version that this step read; if samples were removed later, the model may have "
    "seen those instead of the ones shown."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplacedSample:
    """A sample of a step that can no longer be read.

    Attributes:
        place: Index of its first row in the step's batches, from 0.
        key: Key of the sample; "" if it was erased, since erased keys are not recorded.
        why: "erased", "removed" or "unreadable".
    """

    place: int
    key: str
    why: str

    def __str__(self) -> str:
        if self.why == "erased":
            return "a sample that has been erased since"
        return f"{self.key}, which {'was removed' if self.why == 'removed' else 'cannot be read'}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayedStep:
    """The recreated batches of one step of a run.

    Attributes:
        step: Number of the step, from 1.
        epoch: Epoch of its first batch, from 0.
        batch: Position of its first batch in the epoch, from 0.
        batches: The batches, one per accumulation step.
        replaced: Samples that the run read but that are now replaced by others, by their first row in the step's
            batches.
        recorded: Whether the run recorded the split versions of this step. If not, the run may have read other samples
            instead of samples that were removed.
        data: The split or mixture that was read.
        recipe: The recipe of the run.
    """

    step: int
    epoch: int
    batch: int
    batches: Sequence[Batch]
    replaced: Mapping[int, ReplacedSample]
    recorded: bool
    data: RunData
    recipe: Recipe[Any]

    @property
    def keys(self) -> list[str]:
        """Keys of all rows."""
        return [key for batch in self.batches for key in batch.key]

    def replaced_at(self, row: int) -> ReplacedSample | None:
        """Return the original sample of a row of the step's batches if it was replaced, else None."""
        views = int(getattr(self.recipe.data, "views", 1))
        return self.replaced.get(row // views * views)


def replay(
    run: str | Path,
    step: int,
    *,
    data: SplitLocation | Sequence[str | Path] | None = None,
    version: int | None = None,
    rank: int | None = None,
    threads: int | None = None,
) -> ReplayedStep:
    """Recreate the batches of one step of a run, on the CPU, for any topology of the run.

    Each split is read as it was in this step, even if samples were appended, removed or curated since; erased samples
    are replaced by others.

    Args:
        run: Folder of the run.
        step: Number of the step, from 1.
        data: Current location of the split, or of all splits of a mixture. Defaults to the locations that the run read.
        version: Version of a single split. Defaults to the version of the step or, for runs by earlier releases that
            did not record it, to the last version that the run read.
        rank: Return only the rows of this rank; None for all ranks.
        threads: Number of loader threads.

    Raises:
        ValueError: The run has no such step or rank, its mask followed the run's losses, or it used a custom loader.
        ResumeError: The split or settings do not match the run's newest checkpoint.
        ShardError: The split is missing.
    """
    folder = get_local_path(run, "the run")
    settings, recipe = run_settings(folder), run_recipe(folder)
    planned, ranks, samples = (_number(folder, settings, name) for name in ("steps", "ranks", "samples_per_step"))
    if not 1 <= step <= planned:
        raise ValueError(f"step {step}: the run in {folder} has steps 1 to {planned}")
    if rank is not None and not 0 <= rank < ranks:
        raise ValueError(f"rank {rank}: the run in {folder} had ranks 0 to {ranks - 1}")
    if find_channels(with_channel(recipe).data):
        raise ValueError(
            f"{recipe.name} uses masks.ByClass, which depends on the run's losses; these are not recorded, so its "
            "batches cannot be recreated"
        )
    seen = find_splits_at(folder, step)
    shown = _opened(folder, recipe, data, version, seen)
    had = _as_seen(shown, seen)
    if version is None and seen is not None:
        shown = had
    state = find_newest_state(folder / CHECKPOINTS)
    world = 1 if rank is None else ranks

    def opened(one: RunData) -> Loader[Batch]:
        loader = recipe.loader(
            one,
            batch_size=samples // recipe.accumulate // world,
            steps=planned * recipe.accumulate,
            seed=_number(folder, settings, "seed"),
            device="cpu",
            rank=rank or 0,
            world_size=world,
            threads=threads,
            max_bad_fraction=1.0,
        )
        if state is not None:
            loader.load_state_dict(state["loader"])
        return loader

    first = (0 if state is None else int(state.get("first_batch", 0))) + (step - 1) * recipe.accumulate
    with closing(opened(had)) as loader:
        wanted = []
        for number in range(first, first + recipe.accumulate):
            loader.seek(*divmod(number, len(loader)))
            wanted.append(loader.name_next_samples())
    with closing(opened(shown)) as loader:
        epoch, batch = divmod(first, len(loader))
        loader.seek(epoch, batch)
        source = loader.repeat()
        batches = [next(source) for _ in range(recipe.accumulate)]
    replaced = _find_replaced(wanted, batches)
    if replaced:
        replaced = _tell_removed(replaced, shown, _opened(folder, recipe, data, version, seen))
    return ReplayedStep(
        step=step,
        epoch=epoch,
        batch=batch,
        batches=batches,
        replaced=replaced,
        recorded=seen is not None,
        data=shown,
        recipe=recipe,
    )


def _as_seen(data: RunData, seen: Sequence[SeenSplit] | None) -> RunData:
    """Return the splits as the run saw them; without a record, with all samples that were ever removed."""
    splits = list_manifests(data)
    if seen is None:
        made = tuple(replace(split, removed=np.empty(0, np.int64)) for split in splits)
    else:
        if wrong := [one for one, own in zip(splits, seen, strict=True) if one.fingerprint != own.fingerprint]:
            raise ResumeError(
                f"version {wrong[0].version} of {wrong[0].location} has different samples from the run's split, or a "
                "different order; pass the location of the run's split, or restore it"
            )
        made = tuple(replace(split, removed=own.removed) for split, own in zip(splits, seen, strict=True))
    return replace(data, manifests=made) if isinstance(data, OpenMixture) else made[0]


def _find_replaced(
    wanted: Sequence[Sequence[str | SampleError]], batches: Sequence[Batch]
) -> dict[int, ReplacedSample]:
    """Return the replaced samples by the first row of each; removed ones count as unreadable here."""
    found, begin = dict[int, ReplacedSample](), 0
    for samples, batch in zip(wanted, batches, strict=True):
        views = len(batch) // len(samples) if samples else 1
        for row, one in zip(range(0, len(batch), views), samples, strict=True):
            key = one if isinstance(one, str) else one.key
            if is_erased_key(key):
                found[begin + row] = ReplacedSample(place=begin + row, key="", why="erased")
            elif key != batch.key[row]:
                found[begin + row] = ReplacedSample(place=begin + row, key=key, why="unreadable")
        begin += len(batch)
    return found


def _tell_removed(found: Mapping[int, ReplacedSample], shown: RunData, now: RunData) -> dict[int, ReplacedSample]:
    """Return the replaced samples, with the reason of those that were removed or erased.

    now: The same splits, opened again: a split that was open during an erasure counts erased samples as removed.
    """
    removed = dict[str, str]()
    for split, again in zip(list_manifests(shown), list_manifests(now), strict=True):
        removed |= zip(split.keys(split.removed), again.keys(split.removed), strict=True)
    gone = {key: "erased" if is_erased_key(after) else "removed" for key, after in removed.items()}
    return {
        row: replace(one, why=why, key="" if why == "erased" else one.key)
        for row, one in found.items()
        for why in [gone.get(one.key, one.why)]
    }


def find_worst_steps(metrics: Sequence[StepMetrics], count: int) -> list[tuple[StepMetrics, float]]:
    """Return the steps whose losses are furthest above the median of the steps around them.

    Args:
        metrics: Metrics of all steps.
        count: Number of steps to return.

    Returns:
        Steps and their excess over the median, worst first; a non-finite loss is the worst.
    """
    losses = [step.loss for step in metrics]

    def measure_excess(at: int) -> float:
        if not math.isfinite(losses[at]):
            return math.inf
        near = [loss for loss in losses[max(at - AROUND, 0) : at + AROUND + 1] if math.isfinite(loss)]
        return losses[at] - median(near)

    found = [(metrics[at], measure_excess(at)) for at in range(len(metrics))]
    return sorted(found, key=lambda one: -one[1])[:count]


def _opened(
    folder: Path,
    recipe: Recipe[Any],
    data: SplitLocation | Sequence[str | Path] | None,
    version: int | None,
    seen: Sequence[SeenSplit] | None,
) -> RunData:
    """Open the splits that the run read, or the same splits at other locations, in the versions of a step or the last
    ones.
    """
    mixture, told = read_mixture(folder), read_splits(folder)
    if not told:
        raise ValueError(
            f"{folder} does not record its split, since it was trained with a custom loader; move that loader "
            "with loader.seek(epoch, batch) instead"
        )
    several = isinstance(data, Sequence) and not isinstance(data, str)
    if mixture is not None:
        if data is not None and not several:
            raise ValueError(
                f"{folder} was trained on a mixture; pass the locations of all {len(told)} splits, or none"
            )
        mixture = mixture if data is None else mixture.at(cast(Sequence[str], data))
        if seen is None or version is not None:
            return open_data(recipe, mixture, None, version)
        places = [source.data for source in mixture.sources]
        splits = [_open_seen(recipe, *one) for one in zip(places, seen, strict=True)]
        return OpenMixture(mixture=mixture, manifests=tuple(splits))
    if several:
        raise ValueError(f"{folder} was trained on one split, got {data}; pass one")
    place = told[0]["location"] if data is None else cast(SplitLocation, data)
    if seen is None or version is not None:
        return open_data(recipe, place, None, int(told[0]["version"]) if version is None else version)
    return _open_seen(recipe, place, seen[0])


def _open_seen(recipe: Recipe[Any], place: SplitLocation, seen: SeenSplit) -> Manifest:
    """Open the version of a split that a step read or, if it is gone, another version with the same samples."""
    try:
        split = Manifest.load(place, version=seen.version)
    except ShardError:
        position = {DATASET_VERSION: seen.version, "dataset": seen.fingerprint}
        split = open_manifest_of_state(Manifest.load(place), position)
    check_modality(recipe, split)
    return split


def _number(folder: Path, settings: Json, name: str) -> int:
    value = settings.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{folder / 'run.json'} has no number {name}; pass a run from this release")
    return value
