"""Tensors whose rows are divided among the ranks: those that this rank has, and all of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeGuard

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
