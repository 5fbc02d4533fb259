"""The process group that torchrun's environment describes, this process's rank and its device.

A failure on one rank ends all (`in_step`): ranks compare how it went where one of them locks, saves or loads, so none
waits for a rank that is gone. Before a step an `Agreement` compares on CPUs whether all have a batch, also where
gradients go over NCCL.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # before there is a group: its functions keep the one that they find (see below)
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ...pipelines.stream.topology import check_device, device_named
from ...shards.errors import MaskstreamError

_GROUPS = count()


@contextmanager
def process_group(device: str | torch.device = "auto") -> Iterator[torch.device]:
    """Yields this process's device, with torch.distributed initialised if torchrun started the process.

    The backend is NCCL on CUDA devices and gloo on the CPU. With "auto" or "cuda" each process takes the GPU of its
    LOCAL_RANK. A group that exists already is used and not destroyed. All ranks must call this equally often.

    At the end nothing may refer to the group, so that its threads are joined. A thread of gloo that frees a tensor
    while the interpreter ends aborts the process (docs/robustness.md). torch.distributed.nn.functional, which DDP
    imports, has the group of its import as a default argument, and so kept it.
    """
    chosen = pick_device(device)
    if dist.is_initialized() or "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield chosen
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    store, own_rank, ranks = _meeting_place()
    own_store = PrefixStore(f"maskstream/{next(_GROUPS)}", store)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=own_store, rank=own_rank, world_size=ranks)
    try:
        yield chosen
    finally:
        dist.destroy_process_group()


@cache
def _meeting_place() -> tuple[Store, int, int]:
    """The store of torchrun's environment, this process's rank, and the number of ranks.

    The store keeps the addresses of a group after the group is destroyed. A second group under the same names would
    read them and wait for ranks that are gone, so each group has its own prefix.
    """
    store, own_rank, ranks = next(rendezvous("env://"))
    return store, own_rank, ranks


def pick_device(device: str | torch.device) -> torch.device:
    """The device that a setting means: "auto" is the GPU of LOCAL_RANK if there is one, else the CPU."""
    chosen = device_named(device)
    check_device(chosen)
    if str(chosen) == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return chosen


def rank() -> int:
    """This process's rank, 0 without torch.distributed."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of ranks, 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sums `values` over all ranks, in place, and returns them."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


@contextmanager
def in_step(device: torch.device) -> Iterator[None]:
    """Waits at the end of the block until every rank is there. If the block fails on one rank, all ranks raise."""
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    failed = sum_over_ranks(torch.tensor(int(failure is not None), device=device))
    if failure is not None:
        raise failure
    if failed > 0:
        raise MaskstreamError(f"rank {rank()} ends because another rank failed; the message of that rank says why")


class Agreement:
    """Numbers that the ranks compare on their CPUs, so that no GPU waits. Every rank makes one at the same time."""

    def __init__(self) -> None:
        several = dist.is_initialized() and dist.get_world_size() > 1
        self._several = several
        self._group = dist.new_group(backend="gloo") if several and dist.get_backend() != "gloo" else None

    def largest(self, *numbers: int) -> list[int]:
        """The largest of each number on all ranks."""
        if not self._several:
            return list(numbers)
        found = torch.tensor(numbers)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self._group)
        return [int(one) for one in found]
