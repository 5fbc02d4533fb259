"""Forward and backward on the meta device: whatever needs values on the host fails there, and would wait for a GPU.

It finds `.item()`, boolean indexing, copies to the host and mixed devices, not indexes that lie on the CPU.
"""

import pytest
import torch

from maskstream.train import RECIPES
from maskstream.train.recipes import chosen_recipe

from .test_every_recipe import CUTS

CPU_ONLY = (
    *("avsiam-tiny", "ca-dense-unet-tiny", "maskvit-tiny", "lmd-tiny", "mage-tiny", "pointmae-tiny", "mpm-tiny"),
    *(
        "bert-tiny",
        "mosaicbert-tiny",
        "mrd-tiny",
        "pmlm-tiny",
        "ptw-tiny",
        "retromae-tiny",
        "mdlm-tiny",
        "modernbert-tiny",
    ),
    *("m3ae-tiny", "vqa-tiny", "oneref-tiny", "oneref-refer-tiny", "medthink-tiny"),
    *("roar-lstm-tiny", "roar-roberta-tiny", "native-tiny"),
)
"""The recipes whose step needs values on the host: it splits a batch by its ratios, copies, compares or draws there."""
TINY = [name for name in RECIPES if name.endswith("-tiny")]


def step(name, split_of):
    """Forward and backward of a recipe with its sizes cut, on the meta device; returns the loss."""
    small = chosen_recipe(name, CUTS[name.partition("-")[0]])
    split = split_of(small.data.modality)
    loader = small.loader(split, steps=small.run_length(split), device="cpu", threads=1)
    batch = next(iter(loader))
    loader.close()
    model = small.build().to("meta")
    loss = model(batch.to("meta")).loss()
    loss.backward()
    assert any(p.grad is not None and p.grad.is_meta for p in model.parameters())
    return loss


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TINY if name not in CPU_ONLY])
def test_a_step_needs_no_value_on_the_host(name, split_of):
    loss = step(name, split_of)
    assert loss.is_meta
    assert loss.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", CPU_ONLY)
def test_the_others_are_named(name, split_of):
    """If one of them passes, take it off the list."""
    with pytest.raises((RuntimeError, NotImplementedError)):
        step(name, split_of)
