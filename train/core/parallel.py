"""What the ranks of a run share: gradients (DDP)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .distributed import world_size


def over_ranks(model: nn.Module, device: torch.device) -> nn.Module:
    """The module that a training step calls: of one rank the model itself, else one that averages gradients."""
    if world_size() == 1:
        return model
    wrap: Callable[..., nn.Module] = DistributedDataParallel
    return wrap(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **_without_buffers(),
    )


@contextmanager
def sharing(module: nn.Module, *, now: bool) -> Iterator[None]:
    """A context of a forward and backward pass; unless `now`, ranks keep their gradients for a later pass."""
    if now or not isinstance(module, DistributedDataParallel):
        yield
        return
    with module.no_sync():
        yield


def _without_buffers() -> dict[str, bool]:
    """What keeps DDP from sending buffers in every forward: they are constants, or made of what all ranks share.

    Older versions of torch have no `forward_sync_buffers`, and newer ones warn of `broadcast_buffers`.
    """
    names = ("forward_sync_buffers", "broadcast_buffers")
    return {next(name for name in names if name in signature(DistributedDataParallel).parameters): False}
