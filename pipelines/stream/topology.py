"""Rank, world size, device and thread count of a loader."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from .tensors import torch

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def resolve_ranks(rank: int | None, world_size: int | None, mesh: DeviceMesh | None = None) -> tuple[int, int]:
    """Return rank and world size: the given ones, those along the data dimension `mesh`, or torch.distributed's.

    Raises:
        ValueError: They are inconsistent, or the mesh has several dimensions.
    """
    if mesh is not None:
        if rank is not None or world_size is not None:
            raise ValueError(f"mesh and rank={rank}, world_size={world_size} exclude each other; pass only mesh")
        if mesh.ndim != 1:
            names = mesh.mesh_dim_names or ()
            example = f"mesh=mesh[{names[0]!r}]" if names else "a mesh with one dimension"
            raise ValueError(
                f"the mesh has {mesh.ndim} dimensions ({', '.join(names) or 'without names'}), but data can "
                f"be divided only along one; pass that one, such as {example}"
            )
        return mesh.get_local_rank(), mesh.size()
    if rank is None and world_size is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(
                f"WORLD_SIZE={os.environ['WORLD_SIZE']} is set but torch.distributed is not initialised; call "
                "init_process_group first, or pass rank= and world_size="
            )
        return 0, 1
    if rank is None or world_size is None or not 0 <= rank < world_size:
        raise ValueError(f"rank={rank}, world_size={world_size}: pass both, with 0 <= rank < world_size")
    return rank, world_size


def resolve_device(device: str | torch.device) -> torch.device:
    """Resolve a device; "auto" is the current CUDA device, or the CPU without one, and "cuda" the current one.

    The current device belongs to the calling thread: threads that finish batches have a separate one.
    """
    found = find_device(device)
    if found == torch.device("cuda") and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return found


def find_device(device: str | torch.device) -> torch.device:
    """Parse a device name; "auto" is "cuda", or "cpu" if CUDA is not available.

    Raises:
        ValueError: The name is not a device.
    """
    try:
        return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if str(device) == "auto" else device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is not a device; use 'auto', 'cpu', 'cuda', 'cuda:1', ...") from error


def check_device(device: torch.device) -> None:
    """Raise ValueError for a CUDA device that torch does not find."""
    if device.type != "cuda":
        return
    if not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r}: torch finds no CUDA device on this machine; use 'auto' or 'cpu'")
    if (device.index or 0) >= max(count := torch.cuda.device_count(), 1):
        raise ValueError(
            f"device={str(device)!r}: torch finds {count} CUDA device(s) on this machine, numbered from 0; use 'cuda' "
            f"or one up to 'cuda:{count - 1}'"
        )


def usable_device(device: str | torch.device) -> torch.device:
    """Resolve a device as `resolve_device` does.

    Raises:
        ValueError: This machine does not have the device.
    """
    found = resolve_device(device)
    check_device(found)
    return found


def default_threads(workers: int) -> int:
    """Return the decoding threads per process: the cores of this rank (`cores_of_rank`), divided among its workers."""
    return max(1, cores_of_rank() // max(workers, 1))


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_of_rank() -> int:
    """Return this process's part of the cores, if torchrun started others on this node."""
    return max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def compute_alone() -> None:
    """Limit torch's operations in the calling thread to one thread; other threads keep their setting.

    torch has a thread count per thread, and a default for new threads. `set_num_threads` changes both, so another
    thread restores the default. Without this, n loading threads would start n pools of one thread per core.
    """
    before = torch.get_num_threads() if "torch" in sys.modules else 1
    if before > 1:
        torch.set_num_threads(1)
        other = threading.Thread(target=torch.set_num_threads, args=(before,), name="maskstream-threads")
        other.start()
        other.join()
