"""Which rank this process is, and the process group that torchrun's environment asks for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

_GROUPS = count()


@contextmanager
def process_group(device: str | torch.device = "auto") -> Iterator[torch.device]:
    """This process's device; inside, torch.distributed is initialised if torchrun started the process.

    NCCL on CUDA devices and gloo on the CPU. With "auto" or "cuda" each process takes the GPU of its LOCAL_RANK. A
    group that exists already is used and left alone. All ranks must come here equally often.
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

    The store keeps what ranks wrote for a group after the group is gone. A second group of the same process that used
    the same names would take the addresses of the first for its own and wait for them, so each has a prefix here.
    """
    store, own_rank, ranks = next(rendezvous("env://"))
    return store, own_rank, ranks


def pick_device(device: str | torch.device) -> torch.device:
    """The device that a setting means: "auto" is the GPU of LOCAL_RANK where there is one, else the CPU."""
    if str(device) == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r}, and torch finds no CUDA device here; use 'auto' or 'cpu'")
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
    """The sum of `values` over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def barrier() -> None:
    """Waits until every rank is here."""
    if dist.is_initialized():
        dist.barrier()
