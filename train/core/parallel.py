"""Compiles or recomputes a model's blocks one by one, and shares a model over ranks (DDP, FSDP2)."""

import logging
import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from .distributed import is_divided, rank, sum_over_ranks, world_size
from .model import Model
from .options import Compile

log = logging.getLogger(__name__)

BLOCKS = ("blocks", "encoder", "decoder")
"""Names of the `nn.ModuleList`s that contain a model's blocks."""


def named_blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return each block of a model with its path, in order of creation: the elements of every `nn.ModuleList` named as
    in `BLOCKS`.
    """
    return [
        (f"{path}.{name}", block)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and path.rpartition(".")[2] in BLOCKS
        for name, block in module.named_children()
    ]


def list_blocks(model: nn.Module) -> list[nn.Module]:
    """Return all blocks of a model."""
    return [block for _, block in named_blocks(model)]


def compile_parts(model: nn.Module, how: Compile, device: torch.device) -> None:
    """Compile the model in place: nothing, each of its blocks, or all of it as one graph.

    "auto" compiles nothing on a CPU, where a whole model gained 3 to 6 % of a step for 45 to 49 s of compiling, and
    blocks 2 to 4 % for 17 to 20 s. On CUDA devices "auto" compiles the whole model if it is one graph
    (`Model.whole_graph`), and otherwise each block; FSDP2's hooks, which gather rows, also break a graph. Blocks of the
    same sizes are compiled once. If the model cannot be compiled as requested, this is logged once; code that torch
    cannot trace runs uncompiled.

    Args:
        model: The model.
        how: Parts to compile.
        device: Device of the run.
    """
    if how == "no" or (how == "auto" and device.type != "cuda"):
        return
    say = log.warning if rank() == 0 else log.debug
    if device.type == "cuda" and (lack := what_triton_lacks(device)):
        say("the model runs uncompiled, since torch.compile needs %s", lack)
        return
    divided = any(is_divided(p) for p in model.parameters())
    if how != "block" and isinstance(model, Model) and model.whole_graph and not divided:
        model.compile()
        return
    blocks = list_blocks(model)
    if how == "model" or not blocks:
        why = "its rows are divided among ranks" if divided else "it is not one graph"
        done = "each of its blocks is compiled instead" if blocks else "it has no blocks, so nothing is compiled"
        say("the model is not compiled as a whole, since %s; %s", why, done)
    for block in blocks:
        block.compile()


def what_triton_lacks(device: torch.device) -> str | None:
    """Name the missing requirement for compiling for a CUDA device, None if there is none. Triton compiles a C module
    for each kernel.
    """
    if find_spec("triton") is None:
        return "Triton (pip install triton)"
    if torch.cuda.get_device_properties(device).major < 7:
        return "a GPU of the Volta generation or newer"
    if "CC" not in os.environ and not any(map(shutil.which, ("gcc", "clang"))):
        return "a C compiler (apt-get install gcc libc6-dev)"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's headers (apt-get install python3-dev)"
    return None


def recompute_blocks(model: nn.Module) -> None:
    """Checkpoint activations: each block keeps only its inputs, for a third more computation (Chen et al., 2016).

    Gradients are unchanged, also with dropout.

    Args:
        model: The model, changed in place.

    Raises:
        ValueError: The model has no blocks.
    """
    blocks = list_blocks(model)
    if not blocks:
        raise ValueError(f"a {type(model).__name__} has no blocks to recompute; leave out --checkpoint-blocks")
    for block in blocks:
        setattr(block, "forward", _make_recomputed(block.forward))  # noqa: B010


def _make_recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def forward_again(*inputs: Any, **options: Any) -> Any:  # a function here, which torch.compile enters
        return checkpoint(forward, *inputs, use_reentrant=False, **options)

    return forward_again


@runtime_checkable
class _Divided(Protocol):
    """A module after `divide`."""

    def set_requires_gradient_sync(self, requires_gradient_sync: bool) -> None: ...


def divide(model: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32, *, replicas: int = 1) -> None:
    """Divide the rows of all matrices among the ranks, in place; each block gathers its rows while it computes.

    Vectors and scalars are replicated on each rank, in float32 (see `share_rest`). Without a process group nothing
    happens. The optimiser must be built afterwards. Source: FSDP (Zhao et al., 2023; hybrid sharding, section 3.2.2),
    as torch's `fully_shard`.

    Args:
        model: The model.
        device: Device of the run.
        dtype: Type of matrix products, in which blocks gather their rows; gradients are summed in float32.
        replicas: Number of copies of the rows, each divided among the same number of ranks.

    Raises:
        ValueError: The number of ranks is not a multiple of `replicas`.
    """
    if not torch.distributed.is_initialized():
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    ranks = world_size()
    if ranks % replicas:
        raise ValueError(f"{ranks} ranks are not a multiple of replicas={replicas}; use a number that divides them")
    shape = (ranks,) if replicas == 1 else (replicas, ranks // replicas)
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=("replicas", "rows")[-len(shape) :])
    whole = {p for p in model.parameters() if p.ndim < 2}
    half = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in list_blocks(model):
        fully_shard(block, mesh=mesh, ignored_params=whole, mp_policy=half)
    fully_shard(model, mesh=mesh, ignored_params=whole)
    setattr(model, "gather_root", lambda: None)  # noqa: B010
    register_fsdp_forward_method(model, "gather_root")  # runs the hooks before a forward pass without the pass


@contextmanager
def gathered_root(model: nn.Module) -> Iterator[None]:
    """Gather the parameters outside the blocks of a sharded model, so that its parts can be called even before its
    first forward pass.
    """
    root: Any = model if isinstance(model, _Divided) else None
    if root is not None:
        root.gather_root()
    try:
        yield
    finally:
        if root is not None:
            root.reshard()


def share_rest(module: nn.Module) -> None:
    """Average the gradients of a divided module's whole parameters over the ranks, in one reduction."""
    if isinstance(module, _Divided):
        own = [p.grad for p in module.parameters() if p.grad is not None and not is_divided(p)]
        if own:
            shared = sum_over_ranks(torch.cat([one.flatten() for one in own])).div_(world_size())
            for one, mean in zip(own, torch.split(shared, [one.numel() for one in own]), strict=True):
                one.copy_(mean.view_as(one))


def wrap_for_ranks(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the module that a training step calls: the model itself without a process group or if it is sharded, else
    a DistributedDataParallel.

    Args:
        model: The model.
        device: Device of this rank.
    """
    if not torch.distributed.is_initialized() or isinstance(model, _Divided):
        return model
    wrap: Callable[..., nn.Module] = DistributedDataParallel
    module = wrap(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **_without_buffers(),
    )
    _free_before_group(module)
    return module


def _free_before_group(module: nn.Module) -> None:
    """Make Python free a DDP module before the process group, even if the group was already destroyed.

    If DDP's reducer holds the last reference to a gloo group, it ends the group's threads without releasing the GIL,
    and such a thread may wait for the GIL: a hang (torch 2.13). Python releases the GIL before it ends a group.
    Attributes are freed in the order in which they were set, so the group must come after the reducer.
    """
    vars(module)["group_after_reducer"] = torch.distributed.group.WORLD


@contextmanager
def sharing(module: nn.Module, *, now: bool) -> Iterator[None]:
    """Run a forward and backward pass; unless `now`, ranks keep their gradients for a later pass.

    Args:
        module: Module from `wrap_for_ranks`.
        now: Average the gradients over ranks in this pass.
    """
    if isinstance(module, _Divided):
        module.set_requires_gradient_sync(now)
    if now or not isinstance(module, DistributedDataParallel):
        yield
        return
    with module.no_sync():
        yield


def _without_buffers() -> dict[str, bool]:
    """Return the argument that stops DDP from sending buffers in every forward pass; they are equal on all ranks.

    Older versions of torch have no `forward_sync_buffers`, and newer ones warn about `broadcast_buffers`.
    """
    names = ("forward_sync_buffers", "broadcast_buffers")
    return {next(name for name in names if name in signature(DistributedDataParallel).parameters): False}
