"""Watches a run for collapse: the spread of its features, the line below which a run has collapsed, what is done then.

An encoder whose features no longer tell samples apart has collapsed, and its loss need not show it. `measure_spread`
(collapse.py) measures the vectors of the samples of a step's batch: the model's `features`, or what its `watched`
names, such as the encoder's and the teacher's. Where tokens are watched, so is their rank: a run whose tokens all move
along one line keeps the variance of its samples.

The line is drawn by the run's own first measurement, before its first step: encoders differ too much in what they begin
with for one line. It lies in the tally of checkpoints.
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
"""By measure: the value of features that have collapsed, and the fraction of the distance of the first measurement from
it at which the line lies.
"""
SHARED = {"token rank"}
"""Measures below whose line all that is watched must lie. By the others each encoder is judged by itself: a student
that has collapsed takes 1 / (1 - momentum) steps or so to draw its teacher along. In sound runs the token rank of a
student alone is low for long, while its samples differ more than ever.
"""
LEAST = 1e-4
"""The smallest distance of a line from the collapsed value, for runs that begin there."""
PATIENCE = 2
"""How many measurements in a row must lie below the line: in sound runs the variance of a student dips for one."""
SLOWER, MOST_ROLLBACKS = 0.3, 6
"""The factor of the learning rate after each rollback, and how many there may be."""


class CollapseError(MaskstreamError):
    """The features of a run have collapsed."""


@runtime_checkable
class Watched(Protocol):
    """A model that may collapse. `watched` gives vectors of samples (B, D), or of their tokens (B, N, D), by name."""

    def watched(self, batch: Any) -> Mapping[str, Tensor]: ...


@runtime_checkable
class _GivesFeatures(Protocol):
    def features(self, batch: Any) -> Tensor: ...


def find_line(name: str, first: float) -> float | None:
    """The value of the measure `name`, such as "features: variance", below which a run has collapsed that began with
    `first`; None for a measure that has no line.
    """
    found = LINES.get(name.rpartition(": ")[2])
    return None if found is None else found[0] + max(found[1] * (first - found[0]), LEAST)


class Guard(Hook):
    """Measures a model and counts how often in a row it lay below the line. Every rank calls it at the same steps.

    first: the measures before the first step, which draw the line; where there are none, the next measurement does.
    views: how many rows of a batch each sample has; those that differ are what LiDAR compares.
    mode: what is done where it has collapsed; "auto" is "log" for models that may collapse (`Watched`), else "off".
    ValueError for another mode than "auto" and "off" of a model that gives no features.
    """

    timed = "guard"

    def __init__(self, model: Model[Any], mode: OnCollapse, every: int, device: torch.device, views: int = 1) -> None:
        if mode == "auto":
            mode = "log" if isinstance(model, Watched) else "off"
        if mode != "off" and not isinstance(model, Watched | _GivesFeatures):
            raise ValueError(f"guard={mode!r} watches features, and a {type(model).__name__} gives none; use 'off'")
        self.mode, self._model, self._every, self._device, self._views = mode, model, every, device, views
        self._begun = False
        self._begin_after({})
        self.why = ""

    @property
    def forbids_saving(self) -> bool:
        """Whether the run may go back to checkpoints, and this one would not be sound."""
        return self.mode == "rollback" and self.is_low

    @property
    def is_low(self) -> bool:
        """Whether the last measurement lay below the line."""
        return self._below > 0

    @property
    def has_collapsed(self) -> bool:
        """Whether the last measurements, `PATIENCE` in a row, lay below the line."""
        return self._below >= PATIENCE

    def begin(self, run: RunState) -> None:
        """Forgets what was measured but for the first measures of the run."""
        self._begun = False
        self._begin_after(run.tally.spread)

    def before(self, event: StepEvent) -> None:
        """Measures the model before the first step, unless it was measured before the run was resumed."""
        if not (self._begun or self.first or self.mode == "off"):
            event.spread = self.measure(event.batches[-1])
            event.run.tally.spread = dict(event.spread)
        self._begun = True

    def is_due(self, event: StepEvent) -> bool:
        """Every so many steps, and before a checkpoint to which the run may go back."""
        due = event.step % self._every == 0 or (event.save and self.mode == "rollback")
        return due and self.mode != "off" and not event.spread

    def after(self, event: StepEvent) -> None:
        """Measures the model. Of a collapse it warns, or asks the run to go back to its last sound checkpoint.

        Raises CollapseError if the run is to stop, or has gone back often enough.
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
            tried = f", and so they had {times} times before" if times else ""
            raise CollapseError(
                f"{found}{tried}; start over with a lower base_lr, a longer warmup, or a momentum nearer to 1"
            )
        event.roll_back = self.why

    def _begin_after(self, first: Mapping[str, float]) -> None:
        self._below, self.first = 0, first

    @torch.no_grad()
    def measure(self, batch: Any) -> dict[str, float]:
        """The measures of the samples of a batch by name, such as "features: variance", the mean over ranks.

        Fewer than three samples are not measured: two lie on a line.
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
        """What lies below its line, in words."""
        low = []
        for measure in LINES:
            of = {name: find_line(name, self.first.get(name, 0.0)) for name in made if name.endswith(f": {measure}")}
            below = {name: line for name, line in of.items() if line is not None and made[name] < line}
            if measure not in SHARED or len(below) == len(of):
                low += [f"{name} is {made[name]:.3g}, below {line:.3g}" for name, line in below.items()]
        return low


def _measure_spread(x: Tensor, samples: int) -> dict[str, float]:
    """The measures by name of the vectors (B, D) of samples, or of tokens (B, N, D), whose mean is their sample's. The
    rows of each of the samples follow one another; where their number is 0, all rows are samples.
    """
    rows = x if x.ndim < 3 else x.float().mean(dim=1)
    found = measure_spread(rows)
    if x.ndim == 3:
        found["token rank"] = effective_rank(x.flatten(0, 1))
    if samples > 1 and len(rows) in range(2 * samples, len(rows) + 1, samples):
        found["lidar"] = lidar(rows.reshape(samples, -1, rows.shape[1]))
    return found
