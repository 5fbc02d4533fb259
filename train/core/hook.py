"""Hooks: code that runs before and after each step of a run, for measuring, logging and saving.

The run's built-in parts are hooks (guard.py, validation.py, record.py, profile.py, trackers.py, sample_losses.py), and
so are the hooks that a user passes to a `Trainer` (docs/own-parts.md).
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
    """The part of a `Trainer` that hooks use: `step` of `steps` steps are done.

    A hook that stores it also keeps the lock on the run's folder until both are garbage-collected.
    """

    out: Path
    device: torch.device
    model: Model[Any]
    average: Average | None
    tally: Tally
    step: int
    steps: int

    def save(self) -> None:
        """Start to save a checkpoint."""


@dataclass(kw_only=True, slots=True)
class StepEvent:
    """One step of a run, as passed to its hooks.

    Every rank has the same events, except for its local batches and times.

    Attributes:
        run: The run.
        step: Number of the step, from 1.
        epoch: Epoch of the step's first batch.
        lr: Learning rate of the step.
        batches: Batches of this rank, one per accumulation step.
        rows: Number of samples of all ranks.
        waited_s: Seconds this rank waited for its batches.
        hooks_s: Seconds that hooks took after the step before, by their `timed` name.
        save: Whether a checkpoint follows; hooks may set it.
        settle: Waits until the metrics of this and earlier steps are logged. If called with a function, its scores are
            logged with them.
        seconds: Wall time of the step in seconds, without hooks.
        report: Results of the step, on the device; set when `after` is called.
        stop: Hooks may set it to end the run with a checkpoint.
        roll_back: Reason to return to the last checkpoint; set only by the guard.
        scores: Scores to log with the step; hooks may add to it.
        spread: Spread of the features to log with the step; hooks may set it.
        after_save: Functions to call once the checkpoint is on disk; hooks may append to it.
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
    """Base class for code that a run calls around its steps. Each method does nothing unless overridden.

    Every rank calls the methods at the same steps.

    Attributes:
        timed: Name under which the hook's time appears in the metrics of the next step; "" counts the time as part of
            the step.
    """

    timed: str = "hooks"

    def begin(self, run: RunState) -> None:
        """Start after the run is loaded, with `run.step` steps done; called again after each rollback."""

    def before(self, event: StepEvent) -> None:
        """Run before each step, once its batches are ready."""

    def is_due(self, event: StepEvent) -> bool:
        """Return whether `after` is called after this step."""
        return True

    def after(self, event: StepEvent) -> None:
        """Run after each step, whose results may still be on their way from the device."""

    def log(self, event: StepEvent, metrics: StepMetrics) -> None:
        """Receive the metrics of each step; on a CUDA device often one step later.

        Args:
            event: The step.
            metrics: Metrics of the step.
        """

    def close(self) -> None:
        """Release resources when the run ends, also after an error."""
