"""Checkpoints: model, optimiser, the loader's position and the step, as safetensors and JSON.

    checkpoints/
        latest                  the name of the newest finished checkpoint
        step-00001000/
            model.safetensors       weights by parameter name; `load_model` reads it
            optimiser.safetensors   AdamW's moments and step counts, "parameter name/moment"
            state.json              step, the loader's state, the settings of the run

A checkpoint is written under a temporary name and renamed once all of it is on the disk, so a folder with the final
name is complete. torch.distributed.checkpoint is not used: it keeps its metadata in a pickle, and loading a pickle can
run code; safetensors and JSON cannot. In data-parallel training all ranks hold the same weights and the same loader
position, so rank 0 writes one copy and any number of ranks can read it. The models draw no random numbers while
training, so a checkpoint holds no generator state.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ...shards.config import Json, differences
from ...shards.errors import ResumeError
from ...shards.stores.publish import publish, sync_folder
from .export import save_model

LATEST = "latest"
MODEL, OPTIMISER, STATE = "model.safetensors", "optimiser.safetensors", "state.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """The progress of a run: steps done, steps planned, the loader's state, and the settings that must not change."""

    step: int
    steps: int
    loader: dict[str, Any]
    settings: Json


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    position: Position,
    *,
    about: Mapping[str, str] | None = None,
    keep: int = 2,
) -> Path:
    """Writes a checkpoint into `folder`, makes it the latest, and removes all but the newest `keep`; returns it."""
    final = folder / f"step-{position.step:08d}"
    temporary = folder / f".{final.name}.tmp"
    for stale in (temporary, final):
        shutil.rmtree(stale, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_model(model, temporary / MODEL, about)
    publish(temporary / OPTIMISER, save(_moments(model, optimiser)))
    publish(temporary / STATE, json.dumps(asdict(position), indent=2).encode())
    os.rename(temporary, final)
    sync_folder(folder)
    publish(folder / LATEST, final.name.encode())
    for old in sorted(folder.glob("step-*"))[:-keep]:
        if old != final:
            shutil.rmtree(old)
    return final


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest finished checkpoint in `folder`, or None."""
    pointer = folder / LATEST
    if not pointer.exists():
        return None
    checkpoint = folder / pointer.read_text().strip()
    if not checkpoint.is_dir():
        raise ResumeError(
            f"{pointer} names {checkpoint.name}, which does not exist; write the name of an existing step-* folder "
            "into the file, or delete it to start again"
        )
    return checkpoint


def load_checkpoint(
    checkpoint: Path, model: nn.Module, optimiser: torch.optim.Optimizer, settings: Mapping[str, Any]
) -> Position:
    """Loads a checkpoint's weights and optimiser moments into `model` and `optimiser` and returns its position.

    Raises ResumeError if the checkpoint is damaged, has other settings or belongs to another model.
    """
    try:
        state = json.loads((checkpoint / STATE).read_text())
        weights, moments = load_file(checkpoint / MODEL), load_file(checkpoint / OPTIMISER)
        position = Position(
            step=int(state["step"]), steps=int(state["steps"]), loader=state["loader"], settings=state["settings"]
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ResumeError(
            f"{checkpoint} cannot be read ({error}); write the name of an older step-* folder into "
            f"{checkpoint.parent / LATEST}, or start again in another folder"
        ) from error
    if changed := differences(position.settings, settings):
        raise ResumeError(
            f"{checkpoint} belongs to a run with other settings ("
            + "; ".join(changed)
            + "). Use the same settings or another folder, or start over without resuming"
        )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ResumeError(f"{checkpoint} holds another model: {error}") from error
    _restore_moments(model, optimiser, moments)
    return position


def discard_checkpoints(folder: Path) -> None:
    """Removes every checkpoint in `folder`, beginning with the file that names the latest."""
    (folder / LATEST).unlink(missing_ok=True)
    for old in (*folder.glob("step-*"), *folder.glob(".step-*.tmp")):
        shutil.rmtree(old)


def _moments(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{moment}": value.cpu().contiguous()
        for name, parameter in model.named_parameters()
        for moment, value in optimiser.state[parameter].items()
    }


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
