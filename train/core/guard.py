"""Watches a run for collapse: the spread of its features, the line below which a run has collapsed, what is done then.

An encoder whose features no longer tell samples apart has collapsed, and its loss need not show it. `Spread`
(collapse.py) measures the vectors of the samples of a step's batch: the model's `features`, or what its `watched`
names, such as the encoder's and the teacher's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from maskstream.shards.errors import MaskstreamError

from .collapse import Spread
from .distributed import sum_over_ranks, world_size
from .model import Model
from .parallel import gathered_root
from .process import OnCollapse

LEAST = {"variance": 0.005, "rank me": 1.5}
"""The line: a run whose features have less than either has collapsed. In small runs of I-JEPA on pictures of clothes
sound encoders have more than 0.03 and 2.3 from the first steps on; without stop-gradient they fall below both lines.
"""
PATIENCE = 2
"""So many measurements in a row must lie below the line."""
SLOWER, MOST_ROLLBACKS = 0.3, 6
"""The factor of the learning rate after each rollback, and how many there may be."""


class CollapseError(MaskstreamError):
    """The features of a run have collapsed."""


@runtime_checkable
class Watched(Protocol):
    """A model that may collapse. `watched` gives vectors of the samples of a batch by name, each (B, D)."""

    def watched(self, batch: Any) -> Mapping[str, Tensor]: ...


@runtime_checkable
class _GivesFeatures(Protocol):
    def features(self, batch: Any) -> Tensor: ...


class Guard:
    """Measures a model and counts how often in a row it lay below the line. Every rank calls it at the same steps.

    mode: what is done where it has collapsed; "auto" is "log" for models that may collapse (`Watched`), else "off".
    ValueError for another mode than "auto" and "off" of a model that gives no features.
    """

    def __init__(self, model: Model[Any], mode: OnCollapse, every: int, device: torch.device) -> None:
        if mode == "auto":
            mode = "log" if isinstance(model, Watched) else "off"
        if mode != "off" and not isinstance(model, Watched | _GivesFeatures):
            raise ValueError(f"guard={mode!r} watches features, and a {type(model).__name__} gives none; use 'off'")
        self.mode, self._model, self._every, self._device = mode, model, every, device
        self._below = 0
        self.why = ""

    def is_due(self, step: int) -> bool:
        """Whether the model is measured after `step`."""
        return self.mode != "off" and step % self._every == 0

    @property
    def is_low(self) -> bool:
        """Whether the last measurement lay below the line."""
        return self._below > 0

    @property
    def has_collapsed(self) -> bool:
        """Whether the last measurements, `PATIENCE` in a row, lay below the line."""
        return self._below >= PATIENCE

    def begin(self) -> None:
        """Forgets what was measured."""
        self._below = 0

    @torch.no_grad()
    def measure(self, batch: Any) -> dict[str, float]:
        """The measures of the samples of a batch by name, such as "features: variance", the mean over ranks.

        A batch of fewer than three samples is not measured: two lie on a line.
        """
        if len(batch) < 3:
            return {}
        model: Any = self._model
        training = model.training
        model.eval()
        with gathered_root(model):
            on_device = batch.to(self._device, non_blocking=True)
            found = model.watched(on_device) if isinstance(model, Watched) else {"features": model.features(on_device)}
        model.train(training)
        named = {f"{of}: {name}": v for of, x in found.items() for name, v in Spread.of(x).to_dict().items()}
        shared = sum_over_ranks(torch.tensor([*named.values()], dtype=torch.float64, device=self._device))
        made = dict(zip(named, (shared / world_size()).tolist(), strict=True))
        low = [
            f"{name} is {value:.3g}, below {least:g}"
            for name, value in made.items()
            if value < (least := LEAST.get(name.rpartition(": ")[2], float("-inf")))
        ]
        self._below = self._below + 1 if low else 0
        self.why = "; ".join(low)
        return made
