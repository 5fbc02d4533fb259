"""Watches a run for collapse: measures the spread of its features, compares it with a threshold, and responds.

An encoder has collapsed if its features no longer distinguish samples; its loss need not show it. `measure_spread`
(collapse.py) measures the sample vectors of a step's batch: the model's `features`, or the outputs of its `watched`
method, such as the encoder's and the teacher's. If tokens are watched, their rank is measured too: a run whose tokens
all vary along one line keeps the variance of its samples.

The threshold comes from the run's first measurement, before its first step, since encoders differ too much initially
for a common threshold. It is saved in the tally of checkpoints.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from maskstream.shards.errors import MaskstreamError

from .collapse import effective_rank, lidar, measure_spread
from .distributed import rank, sum_over_ranks, world_size
from .hook import Hook, RunState, StepEvent
from .model import Model
from .options import OnCollapse
from .parallel import gathered_root

log = logging.getLogger(__name__)

LINES = {"variance": (0.0, 0.02), "rank me": (1.0, 0.1), "token rank": (1.0, 0.2)}
"""For each measure: the value for collapsed features, and the position of the threshold as a fraction of the distance
from that value to the first measurement.
"""
SHARED = {"token rank"}
"""Measures that count only if all watched outputs lie below their thresholds. For other measures, each encoder is
judged separately, since a collapsed student takes some 1 / (1 - momentum) steps to collapse its teacher. In healthy
runs, a student's token rank alone may stay low for a long time while its samples differ more than ever.
"""
LEAST = 1e-4
"""Smallest distance of a threshold from the collapsed value, for runs that begin there."""
PATIENCE = 2
"""Number of consecutive measurements below the threshold that count as collapse; in healthy runs a student's variance
may dip for one.
"""
SLOWER, MOST_ROLLBACKS = 0.3, 6
"""Factor of the learning rate after each rollback, and the largest number of rollbacks."""


class CollapseError(MaskstreamError):
    """The features of a run have collapsed."""


@runtime_checkable
class Watched(Protocol):
    """A model that may collapse. `watched` returns vectors of samples (B, D), or of their tokens (B, N, D), by name."""

    def watched(self, batch: Any) -> Mapping[str, Tensor]: ...


@runtime_checkable
class _GivesFeatures(Protocol):
    def features(self, batch: Any) -> Tensor: ...


def find_line(name: str, first: float) -> float | None:
    """Return the collapse threshold of the measure `name` for a run that began with `first`; None if it has none.

    Args:
        name: Name of the measure, with an optional prefix that ends in ": ".
        first: First value of the measure in the run.
    """
    found = LINES.get(name.rpartition(": ")[2])
    return None if found is None else found[0] + max(found[1] * (first - found[0]), LEAST)


class Guard(Hook):
    """Measures the spread of a model's features and counts consecutive measurements below the threshold.

    Every rank calls it at the same steps.

    Args:
        model: The model to measure.
        mode: Response to a collapse. "auto" is "log" for models that may collapse (`Watched`), else "off".
        every: Steps between measurements.
        device: Device of the model.
        views: Number of rows per sample in a batch; LiDAR needs more than one.

    Raises:
        ValueError: `mode` is neither "auto" nor "off" and the model has no features.
    """

    timed = "guard"

    def __init__(self, model: Model[Any], mode: OnCollapse, every: int, device: torch.device, views: int = 1) -> None:
        if mode == "auto":
            mode = "log" if isinstance(model, Watched) else "off"
        if mode != "off" and not isinstance(model, Watched | _GivesFeatures):
            raise ValueError(f"guard={mode!r} monitors features, but a {type(model).__name__} has none; use 'off'")
        self.mode, self._model, self._every, self._device, self._views = mode, model, every, device, views
        self._begun = False
        self._begin_after({})
        self.why = ""

    @property
    def forbids_saving(self) -> bool:
        """Whether checkpoints serve as rollback targets and the current state is below the threshold."""
        return self.mode == "rollback" and self.is_low

    @property
    def is_low(self) -> bool:
        """Whether the last measurement lay below the threshold."""
        return self._below > 0

    @property
    def has_collapsed(self) -> bool:
        """Whether the last `PATIENCE` measurements in a row lay below the threshold."""
        return self._below >= PATIENCE

    def begin(self, run: RunState) -> None:
        """Reset the measurements, except for the first ones of the run."""
        self._begun = False
        self._begin_after(run.tally.spread)

    def before(self, event: StepEvent) -> None:
        """Measure the model before the first step, unless that was done before the run was resumed."""
        if not (self._begun or self.first or self.mode == "off"):
            event.spread = self.measure(event.batches[-1])
            event.run.tally.spread = dict(event.spread)
        self._begun = True

    def is_due(self, event: StepEvent) -> bool:
        """Return whether to measure: every `every` steps, and before a checkpoint that serves as a rollback target."""
        due = event.step % self._every == 0 or (event.save and self.mode == "rollback")
        return due and self.mode != "off" and not event.spread

    def after(self, event: StepEvent) -> None:
        """Measure the model. After a collapse, log a warning, stop, or request a rollback to the last intact
        checkpoint.

        Raises:
            CollapseError: The mode is "stop", or the largest number of rollbacks is reached.
        """
        event.spread = self.measure(event.batches[-1])
        if not self.has_collapsed:
            return
        found, times = (
            f"the features have collapsed after step {event.step}: {self.why}",
            len(event.run.tally.rollbacks),
        )
        if self.mode == "log":
            if rank() == 0:
                log.warning("%s; set guard='stop' or 'rollback' to end such a run or to go back", found)
            self._begin_after(event.run.tally.spread)
            return
        event.settle(None)
        if self.mode == "stop" or times == MOST_ROLLBACKS:
            tried = f", as they had {times} times before" if times else ""
            raise CollapseError(
                f"{found}{tried}; start over with a lower base_lr, a longer warmup, or a momentum closer to 1"
            )
        event.roll_back = self.why

    def _begin_after(self, first: Mapping[str, float]) -> None:
        self._below, self.first = 0, first

    @torch.no_grad()
    def measure(self, batch: Any) -> dict[str, float]:
        """Measure the samples of a batch: values by name, such as "features: variance", averaged over ranks.

        Fewer than three samples are not measured, since two lie on a line.
        """
        model: Any = self._model
        training = model.training
        model.eval()
        with gathered_root(model):
            on_device = batch.to(self._device, non_blocking=True)
            found = model.watched(on_device) if isinstance(model, Watched) else {"features": model.features(on_device)}
        model.train(training)
        if min(map(len, found.values())) < 3:
            return {}
        samples = len(batch) // self._views if self._views > 1 else 0
        named = {f"{of}: {name}": v for of, x in found.items() for name, v in _measure_spread(x, samples).items()}
        shared = sum_over_ranks(torch.tensor([*named.values()], dtype=torch.float64, device=self._device))
        made = dict(zip(named, (shared / world_size()).tolist(), strict=True))
        if not self.first:
            self.first = made
            return made
        low = self._list_low(made)
        self._below = self._below + 1 if low else 0
        self.why = "; ".join(low)
        return made

    def _list_low(self, made: Mapping[str, float]) -> list[str]:
        """Describe each measure that lies below its threshold."""
        low = []
        for measure in LINES:
            of = {name: find_line(name, self.first.get(name, 0.0)) for name in made if name.endswith(f": {measure}")}
            below = {name: line for name, line in of.items() if line is not None and made[name] < line}
            if measure not in SHARED or len(below) == len(of):
                low += [f"{name} is {made[name]:.3g}, below {line:.3g}" for name, line in below.items()]
        return low


def _measure_spread(x: Tensor, samples: int) -> dict[str, float]:
    """Return the measures by name of sample vectors (B, D), or of token vectors (B, N, D), which are averaged per
    sample.

    The rows of each sample are consecutive; if `samples` is 0, every row is a sample.
    """
    rows = x if x.ndim < 3 else x.float().mean(dim=1)
    found = measure_spread(rows)
    if x.ndim == 3:
        found["token rank"] = effective_rank(x.flatten(0, 1))
    if samples > 1 and len(rows) in range(2 * samples, len(rows) + 1, samples):
        found["lidar"] = lidar(rows.reshape(samples, -1, rows.shape[1]))
    return found
