"""torch.compile of a model, whole or block by block."""

from __future__ import annotations

import torch
from torch import nn

from .blocks import blocks_of
from .settings import Compile


def compile_parts(model: nn.Module, how: Compile, device: torch.device) -> None:
    """Compiles the model in place: nothing, each of its blocks, or all of it as one graph.

    "auto" is the whole model on CUDA devices and nothing on a CPU, where a whole model gained 3 to 6 % of a step for 45
    to 49 s of compiling, and blocks 2 to 4 % for 17 to 20 s. Blocks of the same sizes are compiled once.
    """
    if how == "model" or (how == "auto" and device.type == "cuda"):
        model.compile(fullgraph=True)
    elif how == "block":
        for block in blocks_of(model):
            block.compile(fullgraph=True)
