"""The ranks of a run, their communication, and the rows of tensors that are sharded over them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.distributed as dist
import torch.distributed.nn.functional
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from maskstream.pipelines.stream.topology import check_device, find_device
from maskstream.shards.errors import MaskstreamError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_divided(tensor: Tensor) -> TypeGuard[DTensor]:
    """Return whether a tensor is sharded by rows. Sharded tensors exist only once their slow-to-import module is
    loaded.
    """
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def get_local_rows(tensor: Tensor) -> Tensor:
    """Return the rows on this rank, which share memory with the tensor; the tensor itself if it is not divided."""
    return tensor.to_local() if is_divided(tensor) else tensor


def gather_rows(tensor: Tensor) -> Tensor:
    """Return all rows of a tensor. For a divided tensor, every rank must call it."""
    return tensor.full_tensor() if is_divided(tensor) else tensor


def find_part(tensor: DTensor) -> tuple[int, int, int]:
    """Return the part of the rows on this rank, the number of parts, and the replica (0 except with HSDP)."""
    mesh = tensor.device_mesh
    copy = mesh.get_local_rank(0) if mesh.ndim > 1 else 0
    return mesh.get_local_rank(mesh.ndim - 1), mesh.size(mesh.ndim - 1), copy


def divide_like(target: DTensor, shape: Sequence[int], read: Callable[[int, int], Tensor]) -> Tensor:
    """Create a tensor of this shape, with its rows sharded like `target`.

    Args:
        target: Sharded tensor that defines the layout.
        shape: Shape of the whole tensor.
        read: Returns the rows from `first` to `stop`, exclusive; it is called only for this rank's rows.
    """
    from torch.distributed.tensor import DTensor, Replicate, Shard

    mesh, placements = target.device_mesh, target.placements
    if list(placements) not in ([Shard(0)], [Replicate(), Shard(0)]):
        raise ValueError(f"tensors must be divided by rows over a single axis of ranks, got {placements}")
    part, parts, _ = find_part(target)
    share = -(-shape[0] // parts)
    first = min(share * part, shape[0])
    own = read(first, min(first + share, shape[0])).to(target.device)
    size = torch.Size(shape)
    return DTensor.from_local(
        own, mesh, placements, run_check=False, shape=size, stride=torch.empty(size, device="meta").stride()
    )


_GROUPS = count()


@contextmanager
def process_group(device: str | torch.device = "auto") -> Iterator[torch.device]:
    """Yield this process's device, with torch.distributed initialised if torchrun started the process.

    The backend is NCCL on CUDA devices and gloo on the CPU. With "auto" or "cuda" each process uses the GPU of its
    LOCAL_RANK as the current device. An existing group is used and not destroyed. All ranks must call this the same
    number of times.

    If a gloo thread frees a tensor while the interpreter exits, the process aborts (docs/robustness.md). So the threads
    are idle when the group ends. They are also joined, unless something still refers to the group. DTensor's caches do;
    so did torch.distributed.nn.functional, which DDP imports, because a default argument refers to the group at the
    time of its import.
    """
    chosen = pick_device(device)
    with torch.cuda.device(chosen) if chosen.type == "cuda" else nullcontext(), _join_group(chosen):
        yield chosen


@contextmanager
def _join_group(chosen: torch.device) -> Iterator[None]:
    if dist.is_initialized() or "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    store, own_rank, ranks = _find_meeting_place()
    own_store = PrefixStore(f"maskstream/{next(_GROUPS)}", store)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=own_store, rank=own_rank, world_size=ranks)
    try:
        yield
    finally:
        _wait_for_gloo()
        dist.destroy_process_group()


def _wait_for_gloo() -> None:
    """Wait until no gloo thread is running, for at most 10 s. Only works on Linux.

    An operation finishes before its thread has released the operation's tensors. The thread may need the interpreter's
    lock to do so, and the lock is free while this one sleeps. So a thread that slept from one check to the next has
    nothing left to release.
    """
    before, end = None, monotonic() + 10
    while monotonic() < end:
        seen = _list_gloo_threads()
        if not seen or (seen == before and all(state.startswith("S") for state, *_ in seen.values())):
            return
        before = seen
        sleep(0.02)  # longer than a thread waits before it asks for the lock again


def _list_gloo_threads() -> dict[str, tuple[str, ...]]:
    """Return the state and the counts of voluntary and involuntary context switches of each gloo thread, by task id."""
    found = {}
    for task in Path("/proc/self/task").glob("*"):
        with suppress(OSError):
            facts = dict(line.partition(":\t")[::2] for line in (task / "status").read_text().splitlines())
            if facts.get("Name") == "pt_gloo_runloop":
                names = "State", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"
                found[task.name] = tuple(facts.get(name, "") for name in names)  # some kernels do not count switches
    return found


@cache
def _find_meeting_place() -> tuple[Store, int, int]:
    """Return the store of torchrun's environment, this process's rank, and the number of ranks.

    The store keeps the addresses of a group after the group is destroyed. A second group under the same names would
    read them and wait for ranks that no longer exist, so each group has its own prefix.
    """
    store, own_rank, ranks = next(rendezvous("env://"))
    return store, own_rank, ranks


def pick_device(device: str | torch.device) -> torch.device:
    """Return the device of a setting: "auto" is the GPU of LOCAL_RANK if there is one, else the CPU."""
    chosen = find_device(device)
    check_device(chosen)
    if str(chosen) == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return chosen


def rank() -> int:
    """Return this process's rank; 0 without torch.distributed."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of ranks; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum `values` over all ranks in place and return them."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def gather_in_order(rows: Tensor) -> Tensor:
    """Return the values of all ranks in sample order.

    Args:
        rows: Values of this rank (batches, samples per rank).

    Returns:
        The values, flat: the first batch, rank by rank, then the next batch.
    """
    parts = [rows]
    if world_size() > 1:
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts, 1).flatten()


@contextmanager
def in_step(device: torch.device) -> Iterator[None]:
    """Run a block, then wait until every rank has finished it. If it fails on one rank, all ranks raise an error."""
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    failed = sum_over_ranks(torch.tensor(int(failure is not None), device=device))
    if failure is not None:
        raise failure
    if failed > 0:
        raise MaskstreamError(f"rank {rank()} stopped because another rank failed; see that rank's error")


class Agreement:
    """Exchanges numbers that ranks compare on their CPUs, so that no GPU waits. Every rank creates one at the same
    time.
    """

    def __init__(self) -> None:
        several = dist.is_initialized() and dist.get_world_size() > 1
        self._several = several
        self._group = dist.new_group(backend="gloo") if several and dist.get_backend() != "gloo" else None

    def largest(self, *numbers: int) -> list[int]:
        """Return the maximum of each number over all ranks."""
        if not self._several:
            return list(numbers)
        found = torch.tensor(numbers)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self._group)
        return [int(one) for one in found]
