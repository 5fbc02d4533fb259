"""A loss as named parts, with sums apart from weights, so that means are exact over ranks and micro-batches.

The mean of two halves of a batch is not the mean of the batch where the halves weigh differently. So each part has its
sum and the weight of what was summed, and is divided last: by the weight of all that make one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-12
"""Weights below are taken for it, so that the mean over nothing is 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of a loss, float32 scalars: the weighted sum of errors, and the sum of weights. share: what the part's
    mean counts in the loss.
    """

    total: Tensor
    weight: Tensor
    share: float = 1.0

    def mean(self, weight: Tensor | None = None) -> Tensor:
        """The mean error over `weight`, by default the part's own; 0 where that is 0."""
        return self.total / (self.weight if weight is None else weight).clamp_min(LEAST)


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """What a model says of a batch, by name."""

    parts: Mapping[str, Part]

    def loss(self, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """The sum of the parts' means in their shares, a float32 scalar.

        weights: by name, instead of the parts' own, those of the whole step: the sums of the losses of all ranks or
        micro-batches are then the loss of the whole.
        """
        means = self.means(weights)
        whole: Tensor | None = None
        for name, part in self.parts.items():
            one = means[name] if part.share == 1 else part.share * means[name]
            whole = one if whole is None else whole + one
        if whole is None:
            raise ValueError("a loss has at least one part")
        return whole

    def means(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Each part's mean, without its share."""
        return {name: part.mean(None if weights is None else weights[name]) for name, part in self.parts.items()}

    def weights(self) -> Tensor:
        """The weights of the parts, in their order: float32 (parts,), to be summed over ranks."""
        return torch.stack([part.weight.detach().float() for part in self.parts.values()])


def weighted(error: Tensor, weight: Tensor, share: float = 1.0) -> Part:
    """The part of errors and weights of one shape: a token's, a node's or a sample's each."""
    return Part(total=(error * weight).sum(), weight=weight.sum(), share=share)


def squared(made: Tensor, wanted: Tensor, weight: Tensor, share: float = 1.0) -> Part:
    """The part of squared errors of made and wanted (..., values), each the mean over its values, weighted by (...)."""
    error = F.mse_loss(made.float(), wanted.float(), reduction="none").mean(dim=-1)
    return weighted(error, weight, share)
