"""Hooks: what is done before and after each step of a run, such as measuring, logging and saving.

A run's own parts are hooks (guard.py, validation.py, record.py, profile.py, trackers.py, sample_losses.py), and so are
those that a user gives to a `Trainer` (docs/own-parts.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from .metrics import StepMetrics
from .model import Model, TrainingBatch
from .optimiser import Average
from .results import Tally
from .step import StepReport


class RunState(Protocol):
    """The part of a `Trainer` that hooks use. step: how many are done, of `steps`.

    A hook that keeps it keeps the lock of the run's folder until both are garbage.
    """

    out: Path
    device: torch.device
    model: Model[Any]
    average: Average | None
    tally: Tally
    step: int
    steps: int

    def save(self) -> None:
        """Begins a checkpoint."""


@dataclass(kw_only=True, slots=True)
class StepEvent:
    """A step of a run, for its hooks. Every rank has the same events, but for its own batches and times.

    step: counted from 1. batches: of this rank, one for each accumulated one. rows: samples of all ranks. report: what
    the step gave, on the device; from `after` on. settle: waits until the metrics of this step and those before are
    logged; scores of the function that it may be given are among them.

    Hooks may set: scores and spread, which are logged with the step; save, so that a checkpoint follows; stop, so that
    the run ends with a checkpoint; and after_save, what is done when the checkpoint is there. The guard alone sets
    roll_back, why the run is to go back to its last checkpoint.
    """

    run: RunState
    step: int
    epoch: int
    lr: float
    batches: Sequence[TrainingBatch]
    rows: int
    waited_s: float
    hooks_s: Mapping[str, float]
    save: bool
    settle: Callable[[Callable[[], Mapping[str, float]] | None], None]
    seconds: float = 0.0
    report: StepReport = field(init=False)
    stop: bool = False
    roll_back: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    after_save: list[Callable[[], None]] = field(default_factory=list)


class Hook:
    """Something that a run does besides its steps. Each method does nothing unless it is overridden.

    timed: the name of its time in the metrics of the next step; "" for what counts as a part of the step. Every rank
    calls the methods at the same steps.
    """

    timed: str = "hooks"

    def begin(self, run: RunState) -> None:
        """Called when the run is loaded, which continues after `run.step`, and again after each rollback."""

    def before(self, event: StepEvent) -> None:
        """Called before each step, when its batches are there."""

    def is_due(self, event: StepEvent) -> bool:
        """Whether `after` is called after this step."""
        return True

    def after(self, event: StepEvent) -> None:
        """Called after a step. Its results may not have arrived from the device yet."""

    def log(self, event: StepEvent, metrics: StepMetrics) -> None:
        """Called with the metrics of each step; on a CUDA device often one step later."""

    def close(self) -> None:
        """Called when the run ends, for whatever reason."""
