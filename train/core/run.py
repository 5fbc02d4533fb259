"""One call from a recipe and a folder of shards to a trained model."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from maskstream.pipelines.modalities.mixture import DataMixture, OpenMixture, RunData, list_manifests
from maskstream.pipelines.stream.loader import Loader
from maskstream.shards.format.manifest import SplitLocation

from .checkpoint import CHECKPOINTS, list_checkpoints
from .data import open_data, tell_data, tell_unused_ids
from .distributed import process_group, rank, world_size
from .hook import Hook
from .loop import Trainer
from .options import TrainingSettings
from .process import compute_threads
from .recipe import Recipe, with_channel
from .results import TrainResult
from .validation import Validation
from .versions import VersionRecord


def _sizes(data: RunData, loader: Loader[Any]) -> dict[str, int]:
    """Return the number of samples of each source of a mixture, by name."""
    return dict(zip(data.mixture.names, loader.source_sizes, strict=True)) if isinstance(data, OpenMixture) else {}


def train_recipe(
    recipe: Recipe[Any],
    data: SplitLocation | DataMixture,
    out: str | Path,
    options: TrainingSettings,
    *,
    data_version: int | None = None,
    initial: str | Path | None = None,
    validation: Validation | None = None,
    hooks: Sequence[Hook] = (),
) -> TrainResult:
    """Train a recipe on a split or a mixture and write the run into a folder; see `maskstream.train.train`.

    A run whose checkpoint names an earlier version of the split continues with that version. The run's length is
    computed before its loader is created, since masks and batches may change over the run.

    Args:
        recipe: The recipe.
        data: Location of a split, or a mixture.
        out: Folder of the run.
        options: Settings of the run.
        data_version: Version of a single split.
        initial: File or folder of initial weights.
        validation: Validation during training.
        hooks: Further hooks.

    Returns:
        The result of the run.
    """
    folder = Path(out) / CHECKPOINTS if options.resume else None
    found = open_data(recipe, data, folder, data_version, options)
    for split in list_manifests(found):
        recipe.model.check_split(split)
    with process_group(options.device) as own, compute_threads(own):
        recipe = with_channel(recipe)
        if rank() == 0 and initial is None and not (folder and list_checkpoints(folder)):
            tell_unused_ids(recipe.model, list_manifests(found)[0])
        planned = recipe.run_length(found, world_size=world_size()) if options.steps is None else options.steps
        opened = recipe.loader(
            found,
            steps=max(planned, 1) * recipe.accumulate,
            seed=options.seed,
            device=own,
            workers=options.workers,
            threads=options.threads,
        )
        with closing(opened) as loader:
            trainer = Trainer(
                recipe,
                loader,
                out,
                steps=planned,
                initial=initial,
                seed=options.seed,
                device=own,
                data=tell_data(found, labels=recipe.model.most_labels is not None),
                sources=_sizes(found, loader),
                hooks=[VersionRecord(found), *hooks],
                validation=validation,
                settings=options,
            )
            return trainer.run()
