"""Validation of a model during training: its scores on held-out samples, and the weights with the best score.

Scores are computed by a copy of the model on the CPU of rank 0, in eval mode, as in `maskstream evaluate`. Validation
uses neither the random generators nor the loader of the training, so the weights equal those from a run without
validation.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from maskstream.shards.config import Json
from maskstream.shards.limits import PositiveInt, check_fields
from maskstream.shards.stores.local_files import publish

from .distributed import gather_rows, in_step, is_divided, rank, sum_over_ranks
from .hook import Hook, RunState, StepEvent
from .model import Model
from .process import seeded
from .recipe import Recipe
from .results import BestScore
from .weights import compute_weights_sum, make_metadata, pack_weights

log = logging.getLogger(__name__)

BEST = "best.safetensors"
"""The file of the weights with the best score, in the folder of a run."""


class Measured(Protocol):
    """A score of a model: its name, its value, and whether higher or lower is better."""

    @property
    def name(self) -> str: ...

    @property
    def value(self) -> float: ...

    @property
    def lower_is_better(self) -> bool: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """Settings of a run's validation.

    Attributes:
        measure: Computes the scores of a model on the CPU, in eval mode.
        every: Steps between validations; the last step is validated too.
        best: Name of the score whose best weights are kept; None for the first.
        patience: End the run after this many validations in a row without a better score; None for never.
        data: Description of the validation split, written to run.json.
    """

    measure: Callable[[Model[Any]], Sequence[Measured]]
    every: PositiveInt = 500
    best: str | None = None
    patience: PositiveInt | None = None
    data: Json = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)


class Validator(Hook):
    """Validates the model of a run and keeps the best weights in its folder.

    If there is a moving average of the weights, the average is validated.

    Attributes:
        improved: Whether the last score is the best one.
        best: The best score, on rank 0.
    """

    timed = "validation"

    def __init__(self, settings: Validation, recipe: Recipe[Any], out: Path) -> None:
        self._settings, self._recipe, self._path = settings, recipe, out / BEST
        self._copy: Model[Any] | None = None
        self.best: BestScore | None = None
        self.improved = False
        self._improved_at = 0

    def is_due(self, event: StepEvent) -> bool:
        """Return whether this step is a multiple of `every`, the last one, or ends the run early."""
        return event.step == event.run.steps or event.step % self._settings.every == 0 or self.is_in_vain(event.step)

    def after(self, event: StepEvent) -> None:
        """Log the scores. The best weights are written after their checkpoint, so a resume never goes back before
        them.
        """
        event.settle(lambda: self.measure(event.step))
        if self.improved:
            event.run.tally.best = self.best
            event.after_save.append(self.keep)
        event.stop |= self.is_in_vain(event.step)

    def is_in_vain(self, step: int) -> bool:
        """Return whether the run ends early after `step`: the last `patience` validations brought no better score."""
        patience = self._settings.patience
        return patience is not None and step - self._improved_at >= patience * self._settings.every

    def begin(self, run: RunState) -> None:
        """Continue from a checkpoint with its best score; at step 0 remove the file of an earlier run.

        Best weights that a killed run did not write are written now.
        """
        self._model, self._average, best, step = run.model, run.average, run.tally.best, run.step
        self._device = next(run.model.parameters()).device
        self._improved_at = 0 if best is None else step
        kept = self._read_kept(step)
        if best is None or best.name != (self._settings.best or best.name):
            return
        if best.step not in (kept, step):
            if rank() == 0:
                log.warning(
                    "%s does not have the weights of step %d; the best of later steps will be saved",
                    self._path,
                    best.step,
                )
            return
        self.best, self._improved_at = best, best.step
        if kept != best.step:
            self._update_copy()
            self.keep()

    def _read_kept(self, step: int) -> int:
        """Return the step of the saved best weights, 0 if there are none; at step 0 remove an earlier run's."""
        kept = 0
        with in_step(self._device):
            if rank() == 0 and not step:
                self._path.unlink(missing_ok=True)
            elif rank() == 0 and self._path.exists():
                kept = compute_weights_sum(self._path)[1]
        return int(sum_over_ranks(torch.tensor(kept, device=self._device)))

    def measure(self, step: int) -> dict[str, float]:
        """Return the scores of the model after `step` by name; empty on ranks other than 0.

        Raises:
            ValueError: `best` is not one of the scores.
        """
        self._update_copy()
        found: Sequence[Measured] = ()
        improved = False
        with in_step(self._device):
            if self._copy is not None:
                with seeded(0):
                    found = self._settings.measure(self._copy)
                improved = self._is_best(found, step)
        self.improved = bool(sum_over_ranks(torch.tensor(int(improved), device=self._device)))
        self._improved_at = step if self.improved else self._improved_at
        return {one.name: one.value for one in found}

    def _is_best(self, found: Sequence[Measured], step: int) -> bool:
        one = next((one for one in found if one.name == (self._settings.best or one.name)), None)
        if one is None:
            names = ", ".join(repr(one.name) for one in found) or "none"
            raise ValueError(f"best must be the name of a score, got {self._settings.best!r}; this recipe has {names}")
        before = math.nan if self.best is None else self.best.value
        worse = one.value >= before if one.lower_is_better else one.value <= before
        if worse or math.isnan(one.value):
            return False
        self.best = BestScore(step=step, name=one.name, value=one.value)
        return True

    def keep(self) -> None:
        """Write the weights that were measured last; called on all ranks."""
        with in_step(self._device):
            if self._copy is not None and self.best is not None:
                about = {"recipe": self._recipe.name, "step": str(self.best.step)}
                weights = {name: one.contiguous() for name, one in self._copy.state_dict().items()}
                publish(self._path, pack_weights(weights, make_metadata(self._copy, about)))

    def _update_copy(self) -> None:
        """Copy the weights, gathered from all ranks, into the model on the CPU of rank 0."""
        state = {**self._model.state_dict(), **({} if self._average is None else self._average.values)}
        whole = {name: gather_rows(one).detach() for name, one in state.items() if rank() == 0 or is_divided(one)}
        if rank() == 0:
            if self._copy is None:
                self._copy = self._recipe.build().eval()
            self._copy.load_state_dict(whole)
            self._copy.zero_grad()
