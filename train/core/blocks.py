"""The blocks of a model: the layers of equal kind that are compiled, computed again and shared one by one."""

from __future__ import annotations

from torch import nn

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
