"""The metrics of steps, as they arrive: into metrics.jsonl, the bar and hooks; and the end of a run that diverges."""

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from .hook import Hook, StepEvent
from .metrics import MetricsLog, StepMetrics, TrainProgress
from .step import StepWork
from .timing import PARTS, measure_peak_memory

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """The sources of a mixture: their sizes in samples by name, and the number of rows per sample in a batch."""

    sizes: Mapping[str, int]
    views: int = 1

    def take(self, seen: dict[str, int], values: Sequence[float]) -> dict[str, dict[str, float]]:
        """Return the metrics of each source after a step.

        Args:
            seen: Number of samples seen of each source, updated in place.
            values: Sums of losses, then rows, of all sources, as in `StepReport`.

        Returns:
            Epoch and samples of each source, and its loss if the step had samples of it.
        """
        made: dict[str, dict[str, float]] = {}
        losses, rows = values[: len(self.sizes)], values[len(self.sizes) :]
        for (name, size), loss, own in zip(self.sizes.items(), losses, rows, strict=True):
            seen[name] = seen.get(name, 0) + round(own / self.views)
            made[name] = {"epoch": seen[name] / size, "samples": seen[name]}
            if own and math.isfinite(loss):
                made[name]["loss"] = loss / own
        return made


class Recorder(Hook):
    """Receives the results of steps in order and passes their metrics to all hooks.

    On a CUDA device, results are read one step later, so that the device always has a step queued. More than
    `most_skips` skipped steps in a row end the run.

    Attributes:
        losses: Losses of the last 20 steps.
        asked: Whether a rank was asked to stop.
        work: Cost of a step, once it has been counted.
    """

    timed = ""

    def __init__(
        self,
        metrics: MetricsLog,
        bar: TrainProgress,
        hooks: Sequence[Hook],
        most_skips: int,
        device: torch.device,
        sources: SourceCounts,
    ) -> None:
        self._log, self._bar, self._hooks, self._most_skips = metrics, bar, hooks, most_skips
        self._device, self._sources, self._lag = device, sources, int(device.type == "cuda")
        self._pending: deque[StepEvent] = deque()
        self._skipped_in_a_row = 0
        self.asked = False
        self.work: StepWork | None = None
        self.losses: deque[float] = deque(maxlen=20)

    def before(self, event: StepEvent) -> None:
        """Queue the step until its results arrive."""
        self._pending.append(event)

    def after(self, event: StepEvent) -> None:
        """Log the results that should have arrived."""
        if len(self._pending) > self._lag:
            self._take()
        if self.asked:
            self.settle()
        event.stop |= self.asked

    def settle(self, scores: Callable[[], Mapping[str, float]] | None = None) -> None:
        """Log all finished steps; `scores` are computed for the last one."""
        while self._pending:
            self._take(scores if len(self._pending) == 1 else None)

    def _take(self, scores: Callable[[], Mapping[str, float]] | None = None) -> None:
        """Log the oldest step once it arrives; raise FloatingPointError for a non-finite loss or gradient that was not
        skipped.
        """
        done = self._pending.popleft()
        report, tally = done.report, done.run.tally
        loss, norm, stop_requests, *rest = report.values.tolist()
        parts, groups = report.parts, report.groups
        of_parts, of_groups = rest[: len(parts)], rest[len(parts) : len(parts) + len(groups)]
        timed = report.clock.seconds()
        timed["data"] = timed.get("data", 0.0) + done.waited_s
        timed |= done.hooks_s
        self._check_finite(done, loss, norm)
        if scores is not None:
            done.scores |= scores()
        tally.useful_s += 0.0 if report.skipped else done.seconds - done.waited_s
        metrics = StepMetrics(
            step=done.step,
            epoch=done.epoch,
            loss=loss,
            parts=dict(zip(parts, of_parts, strict=True)),
            lr=done.lr,
            grad_norm=norm,
            grad_norms=dict(zip(groups, of_groups, strict=True)),
            clips_per_s=done.rows / done.seconds,
            data_wait_share=min(done.waited_s / done.seconds, 1.0),
            goodput=tally.goodput,
            flops=None if self.work is None else self.work.flops,
            mfu=None if self.work is None else self.work.flops / done.seconds / self.work.peak,
            skipped=report.skipped,
            val=done.scores,
            spread=done.spread,
            seconds={name: timed[name] for name in PARTS if name in timed},
            peak_bytes=measure_peak_memory(self._device),
            sources=self._sources.take(tally.seen, rest[len(parts) + len(groups) :]),
        )
        self._log.write(metrics)
        self._bar.update(metrics)
        for hook in self._hooks:
            hook.log(done, metrics)
        if not metrics.skipped:
            self.losses.append(loss)
        self.asked |= stop_requests > 0

    def _check_finite(self, done: StepEvent, loss: float, norm: float) -> None:
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
        done.run.tally.skipped += 1
        if self._skipped_in_a_row > self._most_skips:
            raise FloatingPointError(
                f"{found}, as in the {self._skipped_in_a_row - 1} previous steps, which were skipped; start over with "
                "a lower base_lr, a longer warmup or a max_grad_norm"
            )
        log.warning("%s; the step is skipped", found)
