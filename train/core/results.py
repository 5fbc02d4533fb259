"""What is made of the results of steps: metrics, the bar, the tally of the run, the end of one that diverges."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from .metrics import MetricsLog, StepMetrics, TrainProgress
from .sample_losses import SampleLosses
from .step import LossScale, StepReport, StepWork
from .timing import PARTS, peak_memory
from .trackers import Trackers
from .validation import BestScore

log = logging.getLogger(__name__)


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

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """The tally of a checkpoint. One of an earlier release has none, and begins here."""
        if not saved:
            return cls()
        scale, best = saved["scale"], saved.get("best")
        return cls(
            began_unix_s=float(saved["began_unix_s"]),
            useful_s=float(saved["useful_s"]),
            skipped=int(saved["skipped"]),
            scale=LossScale(value=float(scale["value"]), good_steps=int(scale["good_steps"])),
            best=None if best is None else BestScore(**best),
            rollbacks=[Rollback(**one) for one in saved.get("rollbacks", [])],
            lr_factor=float(saved.get("lr_factor", 1.0)),
            spread={name: float(value) for name, value in saved.get("spread", {}).items()},
            seen={name: int(value) for name, value in saved.get("seen", {}).items()},
        )


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """The sources of a mixture: their sizes in samples by name, and the rows that a sample has in a batch."""

    sizes: Mapping[str, int]
    views: int = 1

    def take(self, seen: dict[str, int], values: Sequence[float]) -> dict[str, dict[str, float]]:
        """The metrics of each source after a step, whose samples are added to those that were seen; values: as in
        `StepReport`. A source has no loss in a step that has none of its samples.
        """
        made: dict[str, dict[str, float]] = {}
        losses, rows = values[: len(self.sizes)], values[len(self.sizes) :]
        for (name, size), loss, own in zip(self.sizes.items(), losses, rows, strict=True):
            seen[name] = seen.get(name, 0) + round(own / self.views)
            made[name] = {"epoch": seen[name] / size, "samples": seen[name]}
            if own and math.isfinite(loss):
                made[name]["loss"] = loss / own
        return made


@dataclass(frozen=True, kw_only=True, slots=True)
class Launched:
    """A step whose results may not have arrived from the device yet. seconds: those of the step, waiting for its batch
    included. between_s: those of validation and checkpoint before it. spread: of the features, and probed: the scores
    of a probe, where they were measured.
    """

    step: int
    epoch: int
    lr: float
    clips: int
    seconds: float
    waited_s: float
    between_s: Mapping[str, float]
    report: StepReport
    spread: Mapping[str, float] = field(default_factory=dict)
    probed: Mapping[str, float] = field(default_factory=dict)


class Results:
    """Takes the results of steps in order. most_skips: of steps in a row; more end the run.

    losses: those of the last 20 steps. tally: of the run.
    """

    def __init__(
        self,
        log: MetricsLog,
        bar: TrainProgress,
        trackers: Trackers,
        tally: Tally,
        most_skips: int,
        device: torch.device,
        sample_losses: SampleLosses | None = None,
        sources: SourceCounts = SourceCounts({}),
    ) -> None:
        self._device, self._sample_losses, self._sources = device, sample_losses, sources
        self._log, self._bar, self._trackers, self.tally, self._most_skips = log, bar, trackers, tally, most_skips
        self._skipped_in_a_row = 0
        self.work: StepWork | None = None
        self.losses: deque[float] = deque(maxlen=20)

    def take(self, done: Launched, validate: Callable[[int], Mapping[str, float]] | None = None) -> bool:
        """Logs and shows a step, waiting for it to arrive. Returns whether a rank had been asked to stop.

        validate: gives the scores of the model after this step. Raises FloatingPointError for a loss or a gradient that
        is not finite, unless the step was skipped.
        """
        loss, norm, stop_requests, *rest = done.report.values.tolist()
        parts, groups = done.report.parts, done.report.groups
        of_parts, of_groups = rest[: len(parts)], rest[len(parts) : len(parts) + len(groups)]
        timed = done.report.clock.seconds()
        timed["data"] = timed.get("data", 0.0) + done.waited_s
        timed |= done.between_s
        self._check_finite(done, loss, norm)
        val = {**done.probed, **({} if validate is None else validate(done.step))}
        self.tally.useful_s += 0.0 if done.report.skipped else done.seconds - done.waited_s
        record = StepMetrics(
            step=done.step,
            epoch=done.epoch,
            loss=loss,
            parts=dict(zip(parts, of_parts, strict=True)),
            lr=done.lr,
            grad_norm=norm,
            grad_norms=dict(zip(groups, of_groups, strict=True)),
            clips_per_s=done.clips / done.seconds,
            data_wait_share=min(done.waited_s / done.seconds, 1.0),
            goodput=self.tally.goodput,
            flops=None if self.work is None else self.work.flops,
            mfu=None if self.work is None else self.work.flops / done.seconds / self.work.peak,
            skipped=done.report.skipped,
            val=val,
            spread=dict(done.spread),
            seconds={name: timed[name] for name in PARTS if name in timed},
            peak_bytes=peak_memory(self._device),
            sources=self._sources.take(self.tally.seen, rest[len(parts) + len(groups) :]),
        )
        if self._sample_losses is not None and done.report.samples is not None:
            self._sample_losses.write(done.step, done.report.samples.cpu().numpy())
        self._log.write(record)
        self._bar.update(record)
        self._trackers.write(record)
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
        self.tally.skipped += 1
        if self._skipped_in_a_row > self._most_skips:
            raise FloatingPointError(
                f"{found}, and so were those of the {self._skipped_in_a_row - 1} steps before it, which were skipped; "
                "start over with a lower base_lr, a longer warmup or a max_grad_norm"
            )
        log.warning("%s; the step is skipped", found)
