"""A loss in named parts. Each part keeps its sum and its weight apart, so means are exact over ranks and micro-batches.

The mean of a batch is not the mean of its halves' means if the halves have different weights. So each part keeps the
weighted sum of its errors and the sum of the weights, and is divided last, by the weight of the whole step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

LEAST = 1e-12
"""The smallest divisor, so that a mean over no weight is 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossPart:
    """One part of a loss. total: the weighted sum of errors; weight: the sum of the weights; both float32 scalars.
    share: the factor of the part's mean in the loss.
    """

    total: Tensor
    weight: Tensor
    share: float = 1.0

    def mean(self, weight: Tensor | None = None) -> Tensor:
        """The total divided by `weight`, by default the part's own; 0 if the weight is 0."""
        return self.total / (self.weight if weight is None else weight).clamp_min(LEAST)


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """The parts of a model's loss on one batch, by name."""

    parts: Mapping[str, LossPart]

    def loss(self, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """The loss, a float32 scalar: the sum of each part's mean times its share.

        weights: each part's weight over the whole step, instead of its own; the losses of all ranks or micro-batches
        then add up to the loss of the whole step.
        """
        means = self.means(weights)
        whole: Tensor | None = None
        for name, part in self.parts.items():
            one = means[name] if part.share == 1 else part.share * means[name]
            whole = one if whole is None else whole + one
        if whole is None:
            raise ValueError("a loss needs at least one part, got none")
        return whole

    def means(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The mean of each part, not multiplied by its share."""
        return {name: part.mean(None if weights is None else weights[name]) for name, part in self.parts.items()}

    def weights(self) -> Tensor:
        """The weight of each part, in order: float32 (parts,)."""
        return torch.stack([part.weight.detach().float() for part in self.parts.values()])


def weighted(error: Tensor, weight: Tensor, share: float = 1.0) -> LossPart:
    """A part from errors and weights of one shape, one per token, node or sample."""
    return LossPart(total=(error * weight).sum(), weight=weight.sum(), share=share)


def squared(made: Tensor, wanted: Tensor, weight: Tensor, share: float = 1.0) -> LossPart:
    """The mean squared error over the last axis of made and wanted (..., values), weighted by `weight` (...)."""
    return weighted(_mean_square(widen(made) - widen(wanted)), weight, share)


def _mean_square(x: Tensor) -> Tensor:
    """The mean square over the last axis. A compiler joins the squares and their mean by itself."""
    if torch.compiler.is_compiling():
        return x.square().mean(dim=-1)
    return cast(Tensor, _MeanSquare.apply(x))  # type: ignore[no-untyped-call]


class _MeanSquare(torch.autograd.Function):
    """The mean square over the last axis, which makes no tensor of squares: half the time of mse_loss and a mean."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return cast(Tensor, torch.linalg.vector_norm(x, dim=-1).square() / x.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return cast(Tensor, x * (gradients[0] * (2 / x.shape[-1])).unsqueeze(-1))


def widen(x: Tensor) -> Tensor:
    """x in float32, or in float64 if it has that: errors are never summed in half precision."""
    return x if x.dtype == torch.float64 else x.float()
