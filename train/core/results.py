"""What is made of the results of steps: metrics, the bar, the tally of the run, and the end of a run that diverges."""

from __future__ import annotations

import logging
import math
from collections import deque
from dataclasses import dataclass

from .board import Board
from .metrics import MetricsLog, StepMetrics
from .progress import TrainProgress
from .step import StepReport
from .tally import Tally
from .work import Work

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
        self.work: Work | None = None
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
