"""Validation of a model while it trains: its scores on held-out samples, and the weights that have the best one.

Scores are those of a copy of the model on the CPU of rank 0, in eval mode, as `maskstream evaluate` measures them.
Nothing is drawn from the generators of the training, and its loader is not asked, so weights are those of a run without
validation.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from maskstream.shards.config import Json
from maskstream.shards.stores.local_files import publish

from .distributed import gather_rows, in_step, is_divided, rank, sum_over_ranks
from .export import make_metadata, pack_weights, weights_sum
from .model import Model
from .optimiser import Average
from .process import seeded
from .recipe import Recipe

log = logging.getLogger(__name__)

BEST = "best.safetensors"
"""The file of the weights with the best score, in the folder of a run."""


class Probe(Protocol):
    """Measures what a model's features are good for, on the device that it trains on, while it trains.

    `measure` gives scores by name, and leaves the model in eval mode. Every rank calls it at the same steps.
    """

    def is_due(self, step: int, steps: int) -> bool: ...

    def measure(self, model: Model[Any], device: torch.device) -> Mapping[str, float]: ...


class Measured(Protocol):
    """A score of a model: its name, its value, and which way is better."""

    @property
    def name(self) -> str: ...

    @property
    def value(self) -> float: ...

    @property
    def lower_is_better(self) -> bool: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """How a run is validated. measure: gives the scores of a model on the CPU, in eval mode. every: the steps between;
    the last step is validated too. best: the name of the score whose best weights are kept, None for the first.
    patience: the run ends early after so many validations in a row without a better score; None for never. data: what
    run.json says of the split that is read.
    """

    measure: Callable[[Model[Any]], Sequence[Measured]]
    every: int = 500
    best: str | None = None
    patience: int | None = None
    data: Json = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every is the steps between validations and at least 1, got {self.every}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience is validations without a better score and at least 1, got {self.patience}")


@dataclass(frozen=True, kw_only=True, slots=True)
class BestScore:
    """The best score of a run so far: after which step, and the name and the value of the score."""

    step: int
    name: str
    value: float


class Validator:
    """Validates the model of a run and keeps the best weights in its folder `out`. Every rank calls its methods at the
    same steps.

    average: of the weights, which is validated instead of them. improved: whether the last score is the best one. best:
    that score, on rank 0.
    """

    def __init__(
        self, settings: Validation, recipe: Recipe[Any], model: Model[Any], average: Average | None, out: Path
    ) -> None:
        self._settings, self._recipe, self._model, self._average = settings, recipe, model, average
        self._path = out / BEST
        self._device = next(model.parameters()).device
        self._copy: Model[Any] | None = None
        self.best: BestScore | None = None
        self.improved = False
        self._improved_at = 0

    def is_due(self, step: int, steps: int) -> bool:
        """Whether the model is validated after `step` of `steps` steps."""
        return step == steps or step % self._settings.every == 0

    def is_in_vain(self, step: int) -> bool:
        """Whether the run ends early after `step`, since as many validations as `patience` found no better score."""
        patience = self._settings.patience
        return patience is not None and step - self._improved_at >= patience * self._settings.every

    def resume(self, best: BestScore | None, step: int) -> None:
        """Goes on from the checkpoint of `step`, with the best score so far; at step 0 the file of an earlier run goes.
        Weights that a killed run did not come to keep are kept now.
        """
        kept, self._improved_at = 0, 0 if best is None else step
        with in_step(self._device):
            if rank() == 0 and not step:
                self._path.unlink(missing_ok=True)
            elif rank() == 0 and self._path.exists():
                kept = weights_sum(self._path)[1]
        kept = int(sum_over_ranks(torch.tensor(kept, device=self._device)))
        if best is None or best.name != (self._settings.best or best.name):
            return
        if kept == best.step or best.step == step:
            self.best, self._improved_at = best, best.step
            if kept != best.step:
                self._update_copy()
                self.keep()
        elif rank() == 0:
            log.warning("%s is not that of step %d; the best weights are those of steps to come", self._path, best.step)

    def measure(self, step: int) -> dict[str, float]:
        """The scores of the model as it is after `step`, by name; on ranks other than 0 none.

        ValueError for a `best` that is none of them.
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
            raise ValueError(f"best is the name of a score, got {self._settings.best!r}; those of this recipe: {names}")
        before = math.nan if self.best is None else self.best.value
        worse = one.value >= before if one.lower_is_better else one.value <= before
        if worse or math.isnan(one.value):
            return False
        self.best = BestScore(step=step, name=one.name, value=one.value)
        return True

    def keep(self) -> None:
        """Writes the weights that were measured last; called on all ranks."""
        with in_step(self._device):
            if self._copy is not None and self.best is not None:
                about = {"recipe": self._recipe.name, "step": str(self.best.step)}
                weights = {name: one.contiguous() for name, one in self._copy.state_dict().items()}
                publish(self._path, pack_weights(weights, make_metadata(self._copy, about)))

    def _update_copy(self) -> None:
        """Copies the weights, whose rows all ranks give, into the model on the CPU of rank 0."""
        state = {**self._model.state_dict(), **({} if self._average is None else self._average.values)}
        whole = {name: gather_rows(one).detach() for name, one in state.items() if rank() == 0 or is_divided(one)}
        if rank() == 0:
            if self._copy is None:
                self._copy = self._recipe.build().eval()
            self._copy.load_state_dict(whole)
            self._copy.zero_grad()
