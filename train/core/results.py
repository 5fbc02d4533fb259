"""What is made of the results of steps: metrics, the bar, the tally of the run, and the end of a run that diverges."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from .metrics import Board, MetricsLog, StepMetrics, TrainProgress
from .step import LossScale, StepReport, StepWork


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """The end of a run: steps done, steps planned, and the mean loss of the last 20 (None if this call did none)."""

    out: Path
    step: int
    steps: int
    loss: float | None

    @property
    def finished(self) -> bool:
        """Whether all planned steps are done; False after a signal."""
        return self.step >= self.steps


@dataclass(kw_only=True, slots=True)
class Tally:
    """began_unix_s: when the run began for the first time. useful_s: seconds of the steps that count, without waiting
    for data; steps that a restart repeats count once. skipped: steps that were left out. scale: of the loss in float16.
    """

    began_unix_s: float = field(default_factory=time.time)
    useful_s: float = 0.0
    skipped: int = 0
    scale: LossScale = field(default_factory=LossScale)

    @property
    def goodput(self) -> float:
        """The share, in [0, 1], of the wall time since the run began that went into steps that count."""
        return min(self.useful_s / max(time.time() - self.began_unix_s, 1e-9), 1.0)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """The tally of a checkpoint. One of an earlier release has none, and begins here."""
        if not saved:
            return cls()
        scale = saved["scale"]
        return cls(
            began_unix_s=float(saved["began_unix_s"]),
            useful_s=float(saved["useful_s"]),
            skipped=int(saved["skipped"]),
            scale=LossScale(value=float(scale["value"]), good_steps=int(scale["good_steps"])),
        )


log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Launched:
    """A step whose results may not have arrived from the device yet."""

    step: int
    epoch: int
    lr: float
    clips: int
    seconds: float
    waited_s: float
    report: StepReport


class Results:
    """Takes the results of steps in order. most_skips: of steps in a row; more end the run.

    losses: those of the last 20 steps.
    """

    def __init__(self, log: MetricsLog, bar: TrainProgress, board: Board, tally: Tally, most_skips: int) -> None:
        self._log, self._bar, self._board, self._tally, self._most_skips = log, bar, board, tally, most_skips
        self._skipped_in_a_row = 0
        self.work: StepWork | None = None
        self.losses: deque[float] = deque(maxlen=20)

    def take(self, done: Launched) -> bool:
        """Logs and shows a step, waiting for it to arrive. Returns whether a rank had been asked to stop.

        Raises FloatingPointError for a loss or a gradient that is not finite, unless the step was skipped.
        """
        loss, norm, stop_requests, *means = done.report.values.tolist()
        self._check_finite(done, loss, norm)
        self._tally.useful_s += 0.0 if done.report.skipped else done.seconds - done.waited_s
        record = StepMetrics(
            step=done.step,
            epoch=done.epoch,
            loss=loss,
            parts=dict(zip(done.report.parts, means, strict=True)),
            lr=done.lr,
            grad_norm=norm,
            clips_per_s=done.clips / done.seconds,
            data_wait_share=min(done.waited_s / done.seconds, 1.0),
            goodput=self._tally.goodput,
            flops=None if self.work is None else self.work.flops,
            mfu=None if self.work is None else self.work.flops / done.seconds / self.work.peak,
            skipped=done.report.skipped,
        )
        self._log.write(record)
        self._bar.update(record)
        self._board.write(record)
        if not record.skipped:
            self.losses.append(loss)
        return bool(stop_requests > 0)

    def _check_finite(self, done: Launched, loss: float, norm: float) -> None:
        what, value = ("loss", loss) if not math.isfinite(loss) else ("gradient norm", norm)
        if math.isfinite(value):
            self._skipped_in_a_row = 0
            return
        found = f"the {what} of step {done.step} is {value} at lr {done.lr:g}"
        if not done.report.skipped:
            raise FloatingPointError(
                f"{found}, and no checkpoint has its weights; start over with a lower base_lr, a longer warmup or a "
                "max_grad_norm, or skip such steps with --on-nan skip"
            )
        self._skipped_in_a_row += 1
        self._tally.skipped += 1
        if self._skipped_in_a_row > self._most_skips:
            raise FloatingPointError(
                f"{found}, and so were those of the {self._skipped_in_a_row - 1} steps before it, which were skipped; "
                "start over with a lower base_lr, a longer warmup or a max_grad_norm"
            )
        log.warning("%s; the step is skipped", found)
