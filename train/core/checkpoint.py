"""Checkpoints: model, optimiser, the loader's position and the step, as safetensors and JSON.

    checkpoints/
        step-00001000/
            model.safetensors       weights by parameter name; `load_model` reads it
            optimiser.safetensors   AdamW's moments and step counts, "parameter name/moment", and the weights' average
            state.json              step, the loader's state, the settings of the run, and checksums of all files

state.json holds the size and xxh3_128 of the other files and of the lines of metrics.jsonl up to the step, and a
checksum of itself. All are compared before anything is loaded, so a damaged checkpoint is never resumed: the run
continues from the previous intact checkpoint (`find_newest_whole`), and its metrics are cut accordingly.

If weights are divided among ranks, each writes its rows: model-00000-of-00002.safetensors and so on (export.py). Any
number of ranks can read them.

A checkpoint is written under a temporary name and renamed once all of it is on the disk, so a folder with the final
name is complete. torch.distributed.checkpoint is not used: its default format keeps the metadata in a pickle, and
loading a pickle can run code. Its safetensors storage (torch 2.13: HuggingFaceStorageWriter) has no pickle, but it has
no checksums either, writes into the folder under its final name, has no space in a file's metadata for the model's
config, and divided rows must be joined by `consolidate` before others can read them. It would save some 90 lines:
names, checksums, metadata, and reading older checkpoints would still be needed.

In data-parallel training, all ranks have the same weights and loader position, so rank 0 writes one copy and any number
of ranks can read it. Random draws of a model, such as dropout, are seeded by the step (process.py), so a checkpoint
stores no generator state.
"""

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from maskstream.shards.checksummed import read_checksummed
from maskstream.shards.config import Json, differences, rebuild
from maskstream.shards.errors import ResumeError

from .optimiser import Average
from .weights import NO_BYTES, FileSum, RunFileError, TensorFiles, part_name

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
"""Name of the folder of checkpoints inside a run's folder."""
MODEL, OPTIMISER, STATE = "model.safetensors", "optimiser.safetensors", "state.json"
AVERAGE = "average"
_NAME = re.compile(r"step-[0-9]{8,}")
_TEMPORARY = ".step-*.tmp"


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """The progress of a run.

    Attributes:
        step: Steps done.
        steps: Steps planned.
        loader: The loader's state.
        settings: Settings that must not change.
        logged: Checksum of the metrics up to this step.
        first_batch: Batches that the loader had returned before the run began; nonzero only if the loader was moved.
        accumulate: Batches per step.
        tally: See `Tally`.
        parts: Number of ranks that wrote the checkpoint, each a part of weights and moments.
    """

    step: int
    steps: int
    loader: dict[str, Any]
    settings: Json
    logged: FileSum = NO_BYTES
    first_batch: int = 0
    accumulate: int = 1
    tally: Json = field(default_factory=dict)
    parts: int = 1

    def check_loader(self, batches_per_epoch: int) -> None:
        """Raise RunFileError if the loader's state is not the position after `step` steps."""
        found = count_batches_before(self.loader, batches_per_epoch)
        wanted = self.first_batch + self.step * self.accumulate
        if found is not None and found != wanted:
            raise RunFileError(
                f"the loader's position is epoch {self.loader['epoch']}, batch {self.loader['batch']} of "
                f"{batches_per_epoch}, not the position after {wanted} batches"
            )


def count_batches_before(loader: Mapping[str, Any], batches_per_epoch: int) -> int | None:
    """Return the number of batches before a loader's saved position; None if the state has no epoch and batch.

    Args:
        loader: State of the loader.
        batches_per_epoch: Number of batches in an epoch.
    """
    epoch, batch = loader.get("epoch"), loader.get("batch")
    return epoch * batches_per_epoch + batch if isinstance(epoch, int) and isinstance(batch, int) else None


def name_checkpoint(step: int) -> str:
    """Return the name of the folder of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, intact or damaged, newest first."""
    return sorted((path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)), key=read_step, reverse=True)


def find_newest_whole(
    folder: Path, *, metrics: Path | None = None, batches_per_epoch: int | None = None
) -> tuple[Path, Position] | None:
    """Return the newest intact checkpoint in `folder` and its position; None without checkpoints.

    Damage in newer checkpoints is logged as a warning.

    Args:
        folder: Folder of the checkpoints.
        metrics: The metrics.jsonl that must contain the lines up to the checkpoint's step.
        batches_per_epoch: Length of the loader, whose saved position must match the step.

    Raises:
        ResumeError: There are checkpoints, but all are damaged.
    """
    damages: list[str] = []
    for checkpoint in list_checkpoints(folder):
        try:
            position = read_checkpoint(checkpoint)
            if batches_per_epoch is not None:
                position.check_loader(batches_per_epoch)
            if metrics is not None:
                position.logged.begun(metrics)
        except RunFileError as error:
            damages.append(f"{checkpoint.name}: {error}")
            continue
        if damages:
            log.warning("using %s, because newer checkpoints are damaged: %s", checkpoint, "; ".join(damages))
        return checkpoint, position
    if damages:
        raise ResumeError(
            f"no checkpoint in {folder} is intact: {'; '.join(damages)}. Restore a copy of a damaged file, or start "
            "over without resuming (--no-resume). If only metrics.jsonl is damaged, you can move just the "
            "checkpoints folder into a new folder and continue there; metrics then begin after the checkpoint"
        )
    return None


def read_checkpoint(checkpoint: Path) -> Position:
    """Return the position of a checkpoint after comparing all its files with their checksums.

    Raises:
        RunFileError: A file is missing or damaged.
    """
    path = checkpoint / STATE
    if not path.is_file():
        raise RunFileError(f"{STATE} is {'not a file' if path.exists() else 'missing'}")
    try:
        state = read_checksummed(path.read_bytes())
        position = rebuild(Position, state)
        parts = range(position.parts)
        names = [part_name(kind, part, position.parts) for part in parts for kind in (MODEL, OPTIMISER)]
        sums = {name: rebuild(FileSum, state["files"][name]) for name in names}
    except OSError as error:
        raise RunFileError(f"{STATE} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunFileError(f"{STATE} is damaged: {error}") from error
    if checkpoint.name != name_checkpoint(position.step):
        raise RunFileError(f"{STATE} belongs to step {position.step}")
    for name, expected in sums.items():
        expected.check(checkpoint / name)
    return position


def load_checkpoint(
    checkpoint: Path,
    position: Position,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    settings: Mapping[str, Any],
    *,
    average: Average | None = None,
) -> None:
    """Load the weights and optimiser moments of an intact checkpoint.

    Args:
        checkpoint: Folder of the checkpoint.
        position: Position of the checkpoint, from `read_checkpoint`.
        model: Model that receives the weights.
        optimiser: Optimiser that receives the moments.
        settings: Settings of the run, which must equal the checkpoint's.
        average: Averaged weights to load into.

    Raises:
        ResumeError: The checkpoint has other settings, belongs to another model, lacks tensors or cannot be read.
    """
    if changed := differences(position.settings, settings):
        raise ResumeError(
            f"{checkpoint} belongs to a run with other settings ("
            + "; ".join(changed)
            + "). Use the same settings or another folder, or start over without resuming"
        )
    own, by_name = model.state_dict(), dict(model.named_parameters())
    try:
        with _opened(checkpoint, MODEL, position) as files:
            weights = {name: files.like(name, own.get(name)) for name in files.names}
        with _opened(checkpoint, OPTIMISER, position) as files:
            moments = {name: files.like(name, by_name.get(name.rpartition("/")[0])) for name in files.names}
    except (OSError, SafetensorError) as error:
        raise ResumeError(f"{checkpoint} cannot be read ({error}); run the same command again") from error
    lacking = sorted({name.partition(".")[0] for name in own.keys() - weights.keys()})
    if "teacher" in lacking:
        raise ResumeError(
            f"{checkpoint} has no teacher: "
            f"{len([n for n in own.keys() - weights.keys() if n.startswith('teacher.')])} of its tensors are missing, "
            "so the run would continue with a different teacher; restore the complete checkpoint, or start over "
            "without resuming (--no-resume)"
        )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ResumeError(f"{checkpoint} contains a different model: {error}") from error
    if average is not None:
        average.load({name: moments.pop(f"{name}/{AVERAGE}") for name in average.values})
    _restore_moments(model, optimiser, moments)


def _opened(checkpoint: Path, name: str, position: Position) -> TensorFiles:
    return TensorFiles([checkpoint / part_name(name, part, position.parts) for part in range(position.parts)])


def discard_checkpoints(folder: Path) -> None:
    """Remove every checkpoint in `folder`, the newest last, and leftovers of killed runs."""
    for old in reversed(list_checkpoints(folder)):
        remove(old)
    remove_unfinished(folder)


def remove_unfinished(folder: Path) -> None:
    """Remove checkpoints in `folder` that a killed run did not finish writing or removing."""
    for old in folder.glob(_TEMPORARY):
        shutil.rmtree(old, ignore_errors=True)


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint. It is renamed first, so that a kill leaves no partial folder under its name."""
    if not checkpoint.is_dir() or checkpoint.is_symlink():
        checkpoint.unlink()
        return
    going = checkpoint.with_name(f".{checkpoint.name}.old.tmp")
    shutil.rmtree(going, ignore_errors=True)
    checkpoint.rename(going)
    shutil.rmtree(going, ignore_errors=True)


def read_step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _restore_moments(model: nn.Module, optimiser: torch.optim.Optimizer, moments: Mapping[str, Tensor]) -> None:
    by_parameter: dict[str, dict[str, Tensor]] = {}
    for key, value in moments.items():
        name, moment = key.rsplit("/", 1)
        by_parameter.setdefault(name, {})[moment] = value
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    ordered = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    optimiser.load_state_dict(
        {
            "state": {i: by_parameter[name_of[p]] for i, p in enumerate(ordered) if name_of[p] in by_parameter},
            "param_groups": optimiser.state_dict()["param_groups"],
        }
    )
