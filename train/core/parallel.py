"""What the ranks of a run share: gradients (DDP), or also weights and moments (FSDP2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .blocks import blocks_of
from .distributed import is_divided, sum_over_ranks, world_size


@runtime_checkable
class _Divided(Protocol):
    """A module after `divide`."""

    def set_requires_gradient_sync(self, requires_gradient_sync: bool) -> None: ...


def divide(model: nn.Module, device: torch.device) -> None:
    """Divides the rows of all parameters among the ranks, in place; a block's are gathered while it computes.

    Source: FSDP (Zhao et al., 2023), as torch's `fully_shard`. The optimiser must be made after it. With one rank
    nothing is done. Parameters that are single numbers stay whole (see `share_rest`).
    """
    if world_size() == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world_size(),))
    single = {p for p in model.parameters() if not p.ndim}
    for module in (*blocks_of(model), model):
        fully_shard(module, mesh=mesh, ignored_params=single)


def share_rest(module: nn.Module) -> None:
    """Averages the gradients of the parameters of a divided module that are whole on each rank."""
    if isinstance(module, _Divided):
        for p in module.parameters():
            if p.grad is not None and not is_divided(p):
                sum_over_ranks(p.grad).div_(world_size())


def over_ranks(model: nn.Module, device: torch.device) -> nn.Module:
    """The module that a training step calls: a model of one rank or a divided one itself, else one that averages
    gradients.
    """
    if world_size() == 1 or isinstance(model, _Divided):
        return model
    wrap: Callable[..., nn.Module] = DistributedDataParallel
    module = wrap(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **_without_buffers(),
    )
    _outlived_by_group(module)
    return module


def _outlived_by_group(module: nn.Module) -> None:
    """Makes Python free a DDP module before the process group, also where the group was destroyed meanwhile.

    If DDP's reducer holds the last reference to a gloo group, it ends the group's threads and does not let go of the
    GIL, which such a thread may wait for: a hang (torch 2.13). Python lets go of the GIL before it ends a group.
    Attributes are freed in the order in which they were set, so the group comes after the reducer.
    """
    vars(module)["group_after_reducer"] = torch.distributed.group.WORLD


@contextmanager
def sharing(module: nn.Module, *, now: bool) -> Iterator[None]:
    """A context of a forward and backward pass; unless `now`, ranks keep their gradients for a later pass."""
    if isinstance(module, _Divided):
        module.set_requires_gradient_sync(now)
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
