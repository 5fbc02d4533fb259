"""What a run has done so far, and how it ended."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from .step import LossScale


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """The end of a run: steps done, steps planned, and the mean loss of the last 20 (None if this call did none).
    ended_early: whether validations found nothing better for so long that the rest of the steps is left out.
    """

    out: Path
    step: int
    steps: int
    loss: float | None
    ended_early: bool = False

    @property
    def finished(self) -> bool:
        """Whether all planned steps are done, or left out; False after a signal."""
        return self.ended_early or self.step >= self.steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollback:
    """A return to the checkpoint of step `to` after step `at`. why: what had collapsed."""

    at: int
    to: int
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BestScore:
    """The best score of a run so far: after which step, and the name and the value of the score."""

    step: int
    name: str
    value: float


@dataclass(kw_only=True, slots=True)
class Tally:
    """began_unix_s: when the run began for the first time. useful_s: seconds of the steps that count, without waiting
    for data; steps that a restart repeats count once. skipped: steps that were left out. scale: of the loss in float16.
    best: of the validations, on rank 0. rollbacks: of the run; lr_factor: of the learning rate, after them. spread: of
    the features before the first step, where they are guarded. seen: the samples of each source of a mixture.
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
        """The share, in [0, 1], of the wall time since the run began that went into steps that count."""
        return min(self.useful_s / max(time.time() - self.began_unix_s, 1e-9), 1.0)
