"""One call from a recipe and a folder of shards to a trained model."""

from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch

from maskstream.pipelines.modalities.split import CACHE_GB, StoreOptions, open_manifest, version_of_state
from maskstream.pipelines.stream.loader import DATASET_VERSION
from maskstream.shards.checksummed import read_checksummed
from maskstream.shards.errors import ResumeError
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.stores.base import Store

from .checkpoint import CHECKPOINTS, STATE, list_checkpoints
from .distributed import process_group, world_size
from .loop import Trainer
from .process import LoopOptions, compute_threads
from .recipe import Recipe, check_modality, with_channel
from .results import TrainResult
from .validation import Probe, Validation


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadingSettings:
    """How a run's loader reads; see `Options` and `StoreOptions`."""

    workers: int = 0
    threads: int | None = None
    cache: str | Path | None = None
    cache_gb: float = CACHE_GB


def version_of_run(folder: Path, store: Store, info: Mapping[str, Any], asked: int | None = None) -> int | None:
    """The version of a split that the run with the checkpoints in `folder` needs; None for the current one.

    info: the description of the version that is `asked` for, or of the current one. The newest checkpoint whose state
    can be read decides. Raises ResumeError if the split does not have the version any more, or if the version `asked`
    for has other samples.
    """
    for checkpoint in list_checkpoints(folder):
        with suppress(OSError, ValueError, KeyError, TypeError):
            loader = dict(read_checksummed((checkpoint / STATE).read_bytes())["loader"])
            break
    else:
        return asked
    if asked is None:
        return version_of_state(store, info, loader)
    if isinstance(saved := loader.get(DATASET_VERSION), int) and loader.get("dataset") != info["fingerprint"]:
        raise ResumeError(
            f"the run in {folder.parent} has seen version {saved} of its split, and version {asked} of "
            f"{store.location} has other samples or another order; ask for no version to continue, or start a new run "
            "(--no-resume, or another folder)"
        )
    return asked


def open_data(
    recipe: Recipe[Any],
    data: SplitLocation,
    folder: Path | None,
    asked: int | None = None,
    **storing: Unpack[StoreOptions],
) -> Manifest:
    """The split of a run, which is opened here and nowhere else: the version `asked` for, or that of a continued run.

    folder: that of the checkpoints; None for a run that begins anew. ValueError for a split of another modality than
    the recipe's; for other errors see `version_of_run`.
    """
    manifest = open_manifest(data, version=asked, **storing)
    check_modality(recipe, manifest)
    needed = None if folder is None else version_of_run(folder, manifest.store, manifest.info, asked)
    return Manifest.load(manifest, version=needed)


def train_recipe(
    recipe: Recipe[Any],
    data: SplitLocation,
    out: str | Path,
    *,
    data_version: int | None = None,
    steps: int | None = None,
    initial: str | Path | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    loading: LoadingSettings = LoadingSettings(),
    validation: Validation | None = None,
    probe: Probe | None = None,
    **options: Unpack[LoopOptions],
) -> TrainResult:
    """Trains `recipe` on the split in `data` and writes the run into `out`; see `maskstream.train.train`.

    A run whose checkpoint names an earlier version of the split, to which samples were added since, goes on with that.
    The run's length is known before its loader is made, since masks and batches may change over the run.
    """
    folder = Path(out) / CHECKPOINTS if options.get("resume", True) else None
    manifest = open_data(recipe, data, folder, data_version, cache=loading.cache, cache_gb=loading.cache_gb)
    with process_group(device) as own, compute_threads(own):
        recipe = with_channel(recipe)
        planned = recipe.run_length(manifest, world_size=world_size()) if steps is None else steps
        opened = recipe.loader(
            manifest,
            steps=max(planned, 1) * recipe.accumulate,
            seed=seed,
            device=own,
            workers=loading.workers,
            threads=loading.threads,
        )
        about = {"location": manifest.location, "version": manifest.version, "fingerprint": manifest.fingerprint}
        with closing(opened) as loader:
            trainer = Trainer(
                recipe,
                loader,
                out,
                steps=planned,
                initial=initial,
                seed=seed,
                device=own,
                data=about,
                validation=validation,
                probe=probe,
                **options,
            )
            return trainer.run()
