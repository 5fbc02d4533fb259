"""The moving average of the weights over the steps of a run, which often is the better model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .rows import rows


class Average:
    """The exponential moving average of a model's parameters (Polyak and Juditsky, 1992), float32, on their device.

    decay: the weight of the average in each step, which is at most (1 + step) / (10 + step), so that the first weights
    are soon forgotten. Of parameters that are divided among ranks each rank averages its rows.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {name: p.detach() for name, p in model.named_parameters()}
        self.values = {name: p.clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Adds the weights after step `step`, counted from 0."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        averages, weights = ([rows(one) for one in by_name.values()] for by_name in (self.values, self._parameters))
        torch._foreach_lerp_(averages, weights, share)

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Replaces the average by that of a checkpoint."""
        for name, value in values.items():
            rows(self.values[name]).copy_(rows(value))
