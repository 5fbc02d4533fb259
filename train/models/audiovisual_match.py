"""Matching clips with their sounds: means of tokens that are compared with those of all other clips of a batch."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from ..core.losses import Part


def mean_token(tokens: Tensor, valid: Tensor | None = None) -> Tensor:
    """The mean of tokens (B, V, D) of which `valid` bool (B, V) are real, scaled to length 1, float32 (B, D)."""
    tokens = tokens.float()
    if valid is None:
        return F.normalize(tokens.mean(dim=1), dim=1)
    kept = valid.unsqueeze(2)
    return F.normalize((tokens * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1), dim=1)


def matching(one: Tensor, other: Tensor, temperature: float, share: float = 1.0) -> Part:
    """Bidirectional InfoNCE of pairs, unit vectors float32 (B, D), in units of what guessing costs (1 for guesses).

    Each row of `one` is to find its partner among all rows of `other`, of every rank, and the other way round: the mean
    of both cross entropies (van den Oord et al., 2018), divided by the logarithm of the number of pairs.
    """
    mine = torch.arange(len(one), device=one.device)
    ones, others = one, other
    if dist.is_initialized() and dist.get_world_size() > 1:
        ones, others = rows_of_all_ranks(one), rows_of_all_ranks(other)
        mine = mine + dist.get_rank() * len(one)
    there = F.cross_entropy(one @ others.T / temperature, mine, reduction="sum")
    back = F.cross_entropy(other @ ones.T / temperature, mine, reduction="sum")
    total = (there + back) / (2 * math.log(max(len(ones), 2)))
    return Part(total=total, weight=torch.full_like(total, len(one)).detach(), share=share)


def rows_of_all_ranks(rows: Tensor) -> Tensor:
    """The rows (B, D) of all ranks, one rank after the other, with gradients."""
    return cast(Tensor, _Gathered.apply(rows))  # type: ignore[no-untyped-call]


class _Gathered(torch.autograd.Function):
    """The rows of all ranks, one rank after the other; the gradient of a rank's rows is the sum of what all ranks give.

    With the mean over ranks that DistributedDataParallel takes, that is the gradient of the loss of the whole batch.
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
