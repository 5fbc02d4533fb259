"""Tensors whose rows are divided among the ranks: those that this rank has, and all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_divided(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether a rank has only some rows. Such tensors are there only if their module, slow to import, is."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def rows(tensor: Tensor) -> Tensor:
    """The rows on this rank, which share memory with the tensor; the tensor itself if it is not divided."""
    return tensor.to_local() if is_divided(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All rows; of a divided tensor every rank must ask for them."""
    return tensor.full_tensor() if is_divided(tensor) else tensor


def divided_like(target: DTensor, shape: Sequence[int], read: Callable[[int, int], Tensor]) -> Tensor:
    """A tensor of this shape, whose rows are divided as those of `target`.

    read: gives the rows from `first` to `stop`, exclusive, of which only those of this rank are asked for.
    """
    from torch.distributed.tensor import DTensor, Shard

    mesh, placements = target.device_mesh, target.placements
    if list(placements) != [Shard(0)]:
        raise ValueError(f"tensors are divided by rows over one axis of ranks, got {placements}")
    share = -(-shape[0] // mesh.size())
    first = min(share * mesh.get_local_rank(), shape[0])
    own = read(first, min(first + share, shape[0])).to(target.device)
    size = torch.Size(shape)
    return DTensor.from_local(
        own, mesh, placements, run_check=False, shape=size, stride=torch.empty(size, device="meta").stride()
    )
