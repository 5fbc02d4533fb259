"""What the folder of a run holds: its settings, its recipe and its newest weights."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ...shards.config import Json
from ...shards.errors import ResumeError
from .checkpoint import newest_whole
from .recipe import Recipe
from .tensor_files import files_of

log = logging.getLogger(__name__)

MODEL = "model.safetensors"
_REWRITE = "the command `maskstream train` of this run writes it again, also where all steps are done"


def run_settings(run: Path) -> Json:
    """The contents of run.json. ValueError if the folder has none, or a damaged one."""
    path = run / "run.json"
    if not path.exists():
        raise ValueError(f"there is no {path}; give the folder that `maskstream train` wrote")
    try:
        settings = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); {_REWRITE}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is not an object of settings; {_REWRITE}")
    return settings


def run_recipe(run: Path, otherwise: str = "give a run of this release") -> Recipe[Any]:
    """The recipe in run.json. ValueError if there is none of this release; `otherwise` is what can be done then."""
    try:
        return Recipe.from_dict(run_settings(run)["recipe"])
    except KeyError as error:
        raise ValueError(f"{run / 'run.json'} holds no recipe; {otherwise}") from error
    except ValueError as error:
        raise ValueError(f"{run / 'run.json'} holds no recipe of this release ({error}); {otherwise}") from error


def run_weights(run: Path) -> Path:
    """The newest weights of a run. ValueError if it has none, ResumeError if none is whole."""
    path = run / MODEL
    try:
        if found := newest_whole(run / "checkpoints"):
            path = found[0] / MODEL
    except ResumeError as error:
        if not path.exists():
            raise
        log.warning("%s is used: %s", path, error)
    if not files_of(path)[0].exists():
        raise ValueError(f"{run} has neither a checkpoint nor a {MODEL}; it was stopped before its first checkpoint")
    return path
