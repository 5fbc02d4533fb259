"""Errors of 3-D poses that a model lifts from 2-D ones.

MPJPE is the mean distance of predicted and true joints; positions are relative to a root joint, as is usual for
Human3.6M (Ionescu et al., 2014, section 5.2), which calls this protocol 1. P-MPJPE (protocol 2) first aligns each
predicted pose with the true one by a rotation, a translation and a scale (Procrustes).
"""

from __future__ import annotations

import torch
from torch import Tensor


def mpjpe(made: Tensor, true: Tensor, *, root: int | None = 0, valid: Tensor | None = None) -> float:
    """The mean distance of joints, in the unit of the positions; made and true: (..., J, 3).

    root: the joint that is put at the origin in both; None compares positions as they are. valid: bool (..., J), the
    joints that count. ValueError for other shapes, or if no joint counts.
    """
    _check(made, true)
    if root is not None:
        made, true = (x - x[..., root : root + 1, :] for x in (made, true))
    return _mean_distance(made, true, valid)


def p_mpjpe(made: Tensor, true: Tensor, *, valid: Tensor | None = None) -> float:
    """The mean distance after each pose is aligned with the true one; made, true and valid as in `mpjpe`.

    All joints take part in the alignment; reflections are not allowed.
    """
    _check(made, true)
    return _mean_distance(aligned(made, true), true, valid)


def aligned(made: Tensor, true: Tensor) -> Tensor:
    """`made` rotated, moved and scaled for the smallest squared distance to `true`; float64 (..., J, 3).

    A pose whose joints are all one point becomes the mean of the true joints.
    """
    made, true = made.double(), true.double()
    centre, wanted = made.mean(dim=-2, keepdim=True), true.mean(dim=-2, keepdim=True)
    a, b = made - centre, true - wanted
    u, s, vh = torch.linalg.svd(a.mT @ b)
    sign = torch.ones_like(s)
    sign[..., -1] = torch.linalg.det(u @ vh).sign()
    rotation = (u * sign[..., None, :]) @ vh
    size = a.square().sum(dim=(-2, -1))
    scale = (s * sign).sum(dim=-1) / torch.where(size > 0, size, 1.0)
    moved: Tensor = scale[..., None, None] * (a @ rotation) + wanted
    return moved


def _check(made: Tensor, true: Tensor) -> None:
    if made.shape != true.shape or made.ndim < 2 or made.shape[-1] != 3:
        raise ValueError(f"poses must be two tensors (..., J, 3), got {tuple(made.shape)} and {tuple(true.shape)}")


def _mean_distance(made: Tensor, true: Tensor, valid: Tensor | None) -> float:
    distance = torch.linalg.vector_norm(made.double() - true.double(), dim=-1)
    counted = distance if valid is None else distance[valid]
    if not counted.numel():
        raise ValueError("no joint counts; an error needs at least one pose with a valid joint")
    return float(counted.mean())
