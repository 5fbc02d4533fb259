"""What is compiled: by default nothing on a CPU, on a card the model where it is one graph and else its blocks."""

import pytest
import torch
from torch import nn

from maskstream.train import named_recipe
from maskstream.train.core.blocks import blocks_of, compile_parts
from maskstream.train.run import chosen_recipe

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
MOSAIC = chosen_recipe("mosaicbert-tiny", ["model.positions=alibi"])


@pytest.fixture
def compiled(monkeypatch):
    """Which modules were compiled, and whether each had to be one graph."""
    found = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, fullgraph: found.append((module, fullgraph)))
    return found


@pytest.mark.parametrize(
    ("recipe", "how", "device", "whole", "parts"),
    [
        (named_recipe("bert-tiny"), "auto", CPU, None, None),
        (named_recipe("bert-tiny"), "no", CUDA, None, None),
        (named_recipe("bert-tiny"), "auto", CUDA, True, None),
        (named_recipe("bert-tiny"), "block", CUDA, None, True),
        (MOSAIC, "auto", CUDA, None, False),
        (named_recipe("mpm-tiny"), "auto", CUDA, None, False),
        (named_recipe("mpm-tiny"), "model", CPU, True, None),
    ],
)
def test_what_is_compiled(recipe, how, device, whole, parts, compiled):
    with torch.device("meta"):
        model = recipe.build()
    compile_parts(model, how, device)
    assert compiled == (
        ([] if whole is None else [(model, whole)])
        + ([] if parts is None else [(block, parts) for block in blocks_of(model)])
    )


def test_a_divided_model_is_compiled_by_blocks(compiled, monkeypatch):
    monkeypatch.setattr("maskstream.train.core.blocks.is_divided", lambda parameter: True)
    with torch.device("meta"):
        model = named_recipe("mae-tiny").build()
    compile_parts(model, "auto", CUDA)
    assert compiled == [(block, False) for block in blocks_of(model)]
