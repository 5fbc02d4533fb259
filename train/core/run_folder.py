"""The folder of a run: its files, which rank 0 writes for all ranks."""

import json
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from maskstream.shards.config import Json
from maskstream.shards.errors import ResumeError
from maskstream.shards.named import UnimportableError
from maskstream.shards.stores.local_files import publish, remove_leftovers, sole_writer

from .checkpoint import (
    CHECKPOINTS,
    Position,
    discard_checkpoints,
    find_newest_whole,
    name_checkpoint,
    read_checkpoint,
    remove_unfinished,
)
from .distributed import in_step, rank, sum_over_ranks
from .metrics import MetricsLog
from .model import import_models
from .recipe import Recipe
from .weights import NO_BYTES, FileSum, RunFileError, find_files

log = logging.getLogger(__name__)

MODEL = "model.safetensors"
_REWRITE = "rerun this run's `maskstream train` command to write it again, even if all steps are done"


def run_settings(run: Path) -> Json:
    """Return the contents of a run's run.json; raise ValueError if it is missing or damaged."""
    path = run / "run.json"
    if not path.exists():
        raise ValueError(f"{path} does not exist; pass a folder written by `maskstream train`")
    try:
        settings = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); {_REWRITE}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is not a JSON object of settings; {_REWRITE}")
    return settings


def run_recipe(run: Path, otherwise: str = "pass a run of this release") -> Recipe[Any]:
    """Return the recipe in run.json.

    Args:
        run: Folder of the run.
        otherwise: Remedy to include in an error message.

    Raises:
        ValueError: run.json has no recipe, or none that this release can read.
    """
    settings = run_settings(run)
    try:
        import_models()
        return Recipe.from_dict(settings["recipe"])
    except KeyError as error:
        raise ValueError(f"{run / 'run.json'} contains no recipe; {otherwise}") from error
    except UnimportableError as error:
        raise ValueError(f"{run / 'run.json'} cannot be read: {error}") from error
    except ValueError as error:
        raise ValueError(
            f"{run / 'run.json'} contains no recipe that this release can read ({error}); {otherwise}"
        ) from error


def run_weights(run: Path) -> Path:
    """Return the file of a run's newest weights; of a finished run that averages its weights, the average.

    Args:
        run: Folder of the run.

    Raises:
        ValueError: The run has no weights yet.
        ResumeError: No weights are intact.
    """
    path = run / MODEL
    try:
        found = find_newest_whole(run / "checkpoints")
        if found and _read_averaged_step(path) < found[1].step:
            path = found[0] / MODEL
    except ResumeError as error:
        if not path.exists():
            raise
        log.warning("%s is used: %s", path, error)
    if not find_files(path)[0].exists():
        raise ValueError(f"{run} has neither a checkpoint nor a {MODEL}; it was stopped before its first checkpoint")
    return path


def _read_averaged_step(path: Path) -> int:
    """Return the step after which averaged weights were written; -1 if the file is missing or has other weights."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError):
        return -1
    return int(metadata["step"]) if metadata.get("weights") == "average" else -1


RUN = "run.json"
DATA = "data"
"""Field of run.json that describes the training data: location, version and fingerprint of the split."""


class RunWriter:
    """Writes the folder `out` of a run; ranks exchange the outcome on `device`."""

    def __init__(self, out: Path, device: torch.device) -> None:
        self.out, self.device = out, device
        self.checkpoints = out / CHECKPOINTS
        self.metrics = MetricsLog(out / "metrics.jsonl" if rank() == 0 else None)
        self._lock, self._held = ExitStack(), False

    def hold(self) -> None:
        """Lock the folder, unless it is locked already.

        Raises:
            BusyError: Another run has locked it.
        """
        if not self._held:
            with in_step(self.device):
                if rank() == 0:
                    self._lock.enter_context(sole_writer(self.out))
            self._held = True

    def unlock_folder(self) -> None:
        """Unlock the folder."""
        self._lock.close()
        self._held = False

    def begin(
        self, about: Json, load: Callable[[Path, Position], None], *, resume: bool, batches_per_epoch: int
    ) -> int:
        """Load the newest intact checkpoint, which rank 0 chooses, or clear the folder; then write run.json.

        Args:
            about: Settings to write.
            load: Loads a checkpoint, on each rank.
            resume: Whether to continue from a checkpoint.
            batches_per_epoch: Length of the loader.

        Returns:
            The step of the checkpoint; 0 if there is none.
        """
        found: tuple[Path, Position] | None = None
        with in_step(self.device):
            if rank() == 0 and resume:
                found = self._find_newest(batches_per_epoch)
        chosen = 0 if found is None else found[1].step + 1  # 0 for none: a run that may roll back has one of step 0
        chosen = int(sum_over_ranks(torch.tensor(chosen, device=self.device)))
        step = max(chosen - 1, 0)
        with in_step(self.device):
            if chosen:
                load(*(found or self._chosen(step)))
        with in_step(self.device):
            if rank() == 0:
                self._prepare(NO_BYTES if found is None else found[1].logged, about, keep=resume)
        return step

    def _find_newest(self, batches_per_epoch: int) -> tuple[Path, Position] | None:
        """Return the newest intact checkpoint. If the folder has only checkpoints, the metrics begin after it."""
        path = self.out / "metrics.jsonl"
        without = not (self.out / RUN).exists() and (not path.exists() or (path.is_file() and not path.stat().st_size))
        found = find_newest_whole(
            self.checkpoints, metrics=None if without else path, batches_per_epoch=batches_per_epoch
        )
        if found is None or not without:
            return found
        log.warning("%s has no metrics of the steps up to %d; they begin after it", self.out, found[1].step)
        return found[0], replace(found[1], logged=NO_BYTES)

    def _chosen(self, step: int) -> tuple[Path, Position]:
        """Return, on another rank, the checkpoint that rank 0 chose."""
        checkpoint = self.checkpoints / name_checkpoint(step)
        try:
            return checkpoint, read_checkpoint(checkpoint)
        except RunFileError as error:
            raise ResumeError(
                f"rank 0 found {checkpoint} complete, but on rank {rank()} {error}; use a folder that all ranks share"
            ) from error

    def _prepare(self, logged: FileSum, about: Json, *, keep: bool) -> None:
        """Cut the metrics to the lines before this run's first step, and remove files that belong to no checkpoint."""
        remove_leftovers(self.out)
        if keep:
            remove_unfinished(self.checkpoints)
        else:
            discard_checkpoints(self.checkpoints)
        self.metrics.begin_after(logged)
        publish(self.out / RUN, json.dumps(about, indent=2).encode())
