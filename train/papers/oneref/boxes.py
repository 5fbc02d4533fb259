"""Boxes x0, y0, x1, y1, and how much two of them overlap."""

from __future__ import annotations

import torch
from torch import Tensor


def corners(centred: Tensor) -> Tensor:
    """Boxes (..., 4) given by centre, width and height as x0, y0, x1, y1."""
    centre, half = centred[..., :2], centred[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def centred(boxes: Tensor) -> Tensor:
    """Boxes (..., 4) given by their corners as centre, width and height."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of pairs of boxes (..., 4): (...), 0 where neither has an area."""
    both, either = _areas(one, other)
    return both / either.clamp_min(1e-9)


def generalised_overlap(one: Tensor, other: Tensor) -> Tensor:
    """GIoU of pairs of boxes (..., 4): the overlap less the share of the box around both that neither covers, -1 to 1.

    Source: Rezatofighi et al. (2019).
    """
    both, either = _areas(one, other)
    low, high = torch.minimum(one[..., :2], other[..., :2]), torch.maximum(one[..., 2:], other[..., 2:])
    around = (high - low).prod(dim=-1).clamp_min(1e-9)
    return both / either.clamp_min(1e-9) - (around - either) / around


def _areas(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The areas that both boxes share, and that either covers."""
    low, high = torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:])
    both = (high - low).clamp_min(0).prod(dim=-1)
    first, second = ((box[..., 2:] - box[..., :2]).prod(dim=-1) for box in (one, other))
    return both, first + second - both
