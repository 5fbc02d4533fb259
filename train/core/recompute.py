"""Blocks that are computed again in the backward pass, so that their activations need not be kept."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from .blocks import blocks_of


def recompute_blocks(model: nn.Module) -> None:
    """Makes each block of the model keep only its inputs (Chen et al., 2016): about a third more computation.

    Gradients stay the same, also with dropout. Raises ValueError if the model has no blocks.
    """
    blocks = blocks_of(model)
    if not blocks:
        raise ValueError(f"a {type(model).__name__} has no blocks to compute again; leave out --checkpoint-blocks")
    for block in blocks:
        setattr(block, "forward", partial(checkpoint, block.forward, use_reentrant=False))  # noqa: B010
