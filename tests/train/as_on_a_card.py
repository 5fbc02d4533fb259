"""What makes torch.compile trace on a CPU what it would trace on a CUDA device, without a card's kernels.

A rank that trains recipes so:

    python as_on_a_card.py OUT JSON      with the environment that torchrun sets

JSON: a list of a folder's name, a recipe as a dict, its split and options of the Trainer.
"""

import json
import sys
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from maskstream.train import Trainer
from maskstream.train.core import loop, parallel
from maskstream.train.core.distributed import process_group
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn import token_layers
from maskstream.train.nn.token_model import TokenModel

CUDA = torch.device("cuda")
STEPS = 2


_ENCODE = TokenModel.encode_ids


def encode_all(model, ids, places, edges, longest, at=None):
    """What `encode_ids` does on a card: the output for all tokens, and of it those `at`."""
    encoded = _ENCODE(model, ids, places, edges, longest)
    return encoded if at is None else encoded[at]


@contextmanager
def as_on_a_card(backend="eager", *, flash=False):
    """A context in which compiled code takes the branches of `is_cuda`, and "auto" compiles what it does on a card.

    DDP has many small buckets, at whose bounds torch divides a graph. flash: whether the card has FlashAttention.
    """
    from torch._dynamo.variables.constant import ConstantVariable  # 1 s, in each process that collects tests
    from torch._dynamo.variables.tensor import TensorVariable

    compile_with, compile_parts, of_ddp = torch.compile, parallel.compile_parts, parallel._without_buffers()
    with ExitStack() as stack:
        for owner, name, stand_in in (
            (TensorVariable, "method_attr_is_cuda", lambda *_: ConstantVariable.create(True)),
            (token_layers, "has_fused", lambda q, windows=False: flash),
            (parallel, "what_triton_lacks", lambda device: None),
            (loop, "compile_parts", lambda model, how, device: compile_parts(model, how, CUDA)),
            (torch, "compile", lambda what, **how: compile_with(what, **{"backend": backend, **how})),
            (parallel, "_without_buffers", lambda: {**of_ddp, "bucket_cap_mb": 0.02}),
            (TokenModel, "encode_ids", encode_all),
            (torch.distributed, "_DEFAULT_FIRST_BUCKET_BYTES", 1000),
        ):
            stack.enter_context(patch.object(owner, name, stand_in))
        if flash:  # torch 2.15 asks a card for cuDNN's attention first
            stack.enter_context(sdpa_kernel(SDPBackend.FLASH_ATTENTION))
        torch._dynamo.reset()
        yield
        torch._dynamo.reset()


def train_on(recipe, split, out, **options):
    """Two steps of a recipe in the folder `out`."""
    with closing(recipe.loader(split, steps=4, device="cpu", threads=1)) as loader:
        settings = {"steps": STEPS, "precision": "fp32", "progress": False, "resume": False, **options}
        Trainer(recipe, loader, out, device="cpu", **settings).run()


def main():
    torch.set_num_threads(1)
    out, jobs = Path(sys.argv[1]), json.loads(sys.argv[2])
    with process_group("cpu"), as_on_a_card():
        for name, recipe, split, options in jobs:
            torch._dynamo.reset()
            train_on(Recipe.from_dict(recipe), split, out / name, **options)


if __name__ == "__main__":
    main()
