"""The blocks of a model: the layers of equal kind that are compiled, computed again and shared one by one."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .distributed import is_divided
from .model import Model
from .settings import Compile

BLOCKS = ("blocks", "encoder", "decoder")
"""The names of the `nn.ModuleList`s that hold a model's blocks."""


def named_blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every block of a model and its path, in the order in which they were made: the elements of a `nn.ModuleList` that
    is named as in `BLOCKS`.
    """
    return [
        (f"{path}.{name}", block)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and path.rpartition(".")[2] in BLOCKS
        for name, block in module.named_children()
    ]


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Every block of a model."""
    return [block for _, block in named_blocks(model)]


def compile_parts(model: nn.Module, how: Compile, device: torch.device) -> None:
    """Compiles the model in place: nothing, each of its blocks, or all of it as one graph.

    "auto" is nothing on a CPU, where a whole model gained 3 to 6 % of a step for 45 to 49 s of compiling, and blocks 2
    to 4 % for 17 to 20 s. On CUDA devices it is the whole model if that is one graph (`Model.whole_graph`), and else
    each block, of which what is no graph runs as it is: FSDP2's hooks, which gather rows, break a graph too. Blocks of
    the same sizes are compiled once.
    """
    auto = how == "auto" and device.type == "cuda"
    whole = isinstance(model, Model) and model.whole_graph and not any(is_divided(p) for p in model.parameters())
    if how == "model" or (auto and whole):
        model.compile(fullgraph=True)
    elif how == "block" or auto:
        for block in blocks_of(model):
            block.compile(fullgraph=how == "block")


def recompute_blocks(model: nn.Module) -> None:
    """Makes each block of the model keep only its inputs (Chen et al., 2016): about a third more computation.

    Gradients stay the same, also with dropout. Raises ValueError if the model has no blocks.
    """
    blocks = blocks_of(model)
    if not blocks:
        raise ValueError(f"a {type(model).__name__} has no blocks to compute again; leave out --checkpoint-blocks")
    for block in blocks:
        setattr(block, "forward", partial(checkpoint, block.forward, use_reentrant=False))  # noqa: B010
