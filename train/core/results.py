"""The progress and the result of a run."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from .step import LossScale


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """The result of a run.

    Attributes:
        out: Folder of the run.
        step: Number of completed steps.
        steps: Number of planned steps.
        loss: Mean loss of the last 20 steps; None if this call did none.
        ended_early: Whether the run ended because validations stopped improving.
    """

    out: Path
    step: int
    steps: int
    loss: float | None
    ended_early: bool = False

    @property
    def finished(self) -> bool:
        """Whether all planned steps are done or were ended early; False after a signal."""
        return self.ended_early or self.step >= self.steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollback:
    """A return to the checkpoint of step `to` after step `at`; `why` describes the collapse."""

    at: int
    to: int
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BestScore:
    """The best score of a run so far: its step, name and value."""

    step: int
    name: str
    value: float


@dataclass(kw_only=True, slots=True)
class Tally:
    """Totals of a run, saved in its checkpoints.

    Attributes:
        began_unix_s: Unix time at which the run first started.
        useful_s: Seconds spent on steps that count, without waiting for data; steps repeated after a restart count
            once.
        skipped: Number of skipped steps.
        scale: Loss scale in float16.
        best: Best validation score, on rank 0.
        rollbacks: Rollbacks of the run.
        lr_factor: Factor of the learning rate after rollbacks.
        spread: Spread of the features before the first step, if they are guarded.
        seen: Number of samples read from each source of a mixture.
    """

    began_unix_s: float = field(default_factory=time.time)
    useful_s: float = 0.0
    skipped: int = 0
    scale: LossScale = field(default_factory=LossScale)
    best: BestScore | None = None
    rollbacks: list[Rollback] = field(default_factory=list)
    lr_factor: float = 1.0
    spread: dict[str, float] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)

    @property
    def goodput(self) -> float:
        """Fraction, in [0, 1], of the wall time since the run started that was spent on steps that count."""
        return min(self.useful_s / max(time.time() - self.began_unix_s, 1e-9), 1.0)
