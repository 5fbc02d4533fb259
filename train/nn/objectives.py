"""Objectives that several papers share: normalised targets, the Chamfer distance, and the matching of pairs."""

import math
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from maskstream.train.core.model import LossPart, widen

EPS = 1e-6
"""Added to the variance, as in MAE (He et al., 2022)."""


def compute_joint_moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over the last axis of (..., values), which becomes 1 long.

    The variance is unbiased, and 1e-6 is added to it. torch.var_mean gives the same results and is ten times slower on
    a CPU.
    """
    mean = values.mean(dim=-1, keepdim=True)
    variance = (values - mean).square().sum(dim=-1, keepdim=True) / (values.shape[-1] - 1)
    return mean, (variance + EPS).sqrt()


def compute_squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared distances (B, N, M) between points (B, N, 3) and (B, M, 3).

    They are summed axis by axis, which stays exact for nearby points.

    Args:
        a: First points.
        b: Second points.
    """
    total = (a[:, :, None, 0] - b[:, None, :, 0]).square()
    for axis in (1, 2):
        total = total + (a[:, :, None, axis] - b[:, None, :, axis]).square()
    return total


def chamfer(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared distance from each point to its nearest point in the other cloud, summed over both
    directions.

    Args:
        a: Points (B, N, 3).
        b: Points (B, M, 3).

    Returns:
        float (B,), differentiable.
    """
    distance = compute_squared_distances(a, b)
    return distance.amin(dim=2).mean(dim=1) + distance.amin(dim=1).mean(dim=1)


def average_valid_tokens(tokens: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean of tokens, scaled to length 1.

    Args:
        tokens: Tokens (B, V, D).
        valid: Tokens to average, bool (B, V); all by default.

    Returns:
        float32 (B, D).
    """
    tokens = widen(tokens)
    if valid is None:
        return F.normalize(tokens.mean(dim=1), dim=1)
    kept = valid.unsqueeze(2)
    return F.normalize((tokens * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1), dim=1)


def count_pairs(one: Tensor) -> int:
    """Return the number of pairs that a row of (B, D) is matched against, over all ranks; at least 2."""
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    return max(len(one) * ranks, 2)


def matching(one: Tensor, other: Tensor, temperature: float, share: float = 1.0) -> LossPart:
    """Return the bidirectional InfoNCE loss (van den Oord et al., 2018) of pairs; 1 at chance.

    Each row of `one` is classified against the rows of `other` on all ranks, and vice versa. The loss is the mean of
    both cross-entropies divided by the logarithm of the number of pairs.

    Args:
        one: Unit vectors float32 (B, D).
        other: Unit vectors float32 (B, D).
        temperature: Divisor of the cosines.
        share: Factor of the part in the loss.
    """
    mine = torch.arange(len(one), device=one.device)
    ones, others = one, other
    if dist.is_initialized() and dist.get_world_size() > 1:
        ones, others = rows_of_all_ranks(one), rows_of_all_ranks(other)
        mine = mine + dist.get_rank() * len(one)
    there = F.cross_entropy(one @ others.T / temperature, mine, reduction="sum")
    back = F.cross_entropy(other @ ones.T / temperature, mine, reduction="sum")
    total = (there + back) / (2 * math.log(count_pairs(one)))
    return LossPart(total=total, weight=torch.full_like(total, len(one)).detach(), share=share)


def rows_of_all_ranks(rows: Tensor) -> Tensor:
    """Return the rows (B, D) of all ranks, in rank order, with gradients."""
    return cast(Tensor, _Gathered.apply(rows))  # type: ignore[no-untyped-call]


class _Gathered(torch.autograd.Function):
    """All-gather with gradients: the gradient of a rank's rows is the sum of the gradients on all ranks.

    DistributedDataParallel then averages over ranks, which gives the gradient of the loss of the whole batch.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.n = len(rows)
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous()
        dist.all_reduce(summed)
        return summed.narrow(0, dist.get_rank() * ctx.n, ctx.n)
