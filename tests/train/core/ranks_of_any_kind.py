"""A rank that trains on synthetic clips.

    python ranks_of_any_kind.py OUT RECIPE_JSON LOADER_JSON OPTIONS_JSON      with the environment that torchrun sets

RECIPE_JSON: fields of the recipe. LOADER_JSON: of the loader; "samples": of all ranks in a batch, "dies_at": kill this
rank at that batch, "fails_at": let the loader of rank 1 fail there. OPTIONS_JSON: of the Trainer, "until", and
"backend": that of torch.compile.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch

from maskstream.shards.errors import SampleError
from maskstream.train import Trainer
from maskstream.train.core.distributed import process_group, rank, world_size
from maskstream.train.core.dropout import DropoutConfig
from maskstream.train.core.validation import Validation
from maskstream.train.evaluate.evaluation import Score

SAMPLES = 4


def synthetic():
    spec = spec_from_file_location("synthetic", Path(__file__).parents[1] / "synthetic.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(out, fields, of_loader, options, device):
    """Trains this rank; returns the step that it began after."""
    made = synthetic()
    size = of_loader.pop("samples", SAMPLES) // world_size()
    compile_with, backend = torch.compile, options.pop("backend", None)
    if backend is not None:
        torch.compile = partial(compile_with, backend=backend)
    dies_at, fails_at = of_loader.pop("dies_at", None), of_loader.pop("fails_at", None)
    loader = made.SyntheticLoader(batches=5, size=size, rank=rank(), ranks=world_size(), **of_loader)

    def before(made):
        if made == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if made == fails_at and rank() == world_size() - 1:
            raise SampleError(shard="a", key="b", component="c", reason="too many are bad")

    loader.before_batch = before
    recipe = made.small_recipe()
    recipe = replace(recipe, batch_size=size, optimiser=replace(recipe.optimiser, **fields))
    until, dropout = options.pop("until", None), options.pop("dropout", False)
    if dropout:
        rates = DropoutConfig(hidden=0.3, attention=0.1, path=0.2)
        recipe = replace(recipe, model=replace(recipe.model, dropout=rates))
    says_types = options.pop("says_types", False)
    if every := options.pop("validated", None):
        batch = made.SyntheticLoader(size=SAMPLES).make(9, 9)
        options["validation"] = Validation(
            measure=lambda model: [Score(name="loss", value=float(model(batch).loss().detach()))],
            every=every,
        )
    trainer = Trainer(recipe, loader, out, device=device, progress=False, **options)
    if says_types:
        block = trainer.model.encoder.stacks[0].blocks[0]
        norm = block.norm1.of[0]
        block.mlp.register_forward_hook(lambda mlp, given, made: print("types", mlp.up.weight.dtype, norm.weight.dtype))
    begun = trainer.step
    trainer.run(until)
    return begun


def main():
    torch.set_num_threads(1)
    with process_group("cpu") as device:
        begun = run(sys.argv[1], *map(json.loads, sys.argv[2:]), device)
    print(f"begun after step {begun}", flush=True)


if __name__ == "__main__":
    main()
