"""The gradient of the first step of recipes, of one rank on a whole batch or of several that share it.

    python gradients_of_ranks.py OUT PARALLEL JSON      with the environment that torchrun sets

JSON: for each name a recipe as a dict and its split. Rank 0 writes OUT, a safetensors file with a gradient per name.
"""

import json
import sys
from contextlib import closing

import torch
from safetensors.torch import save_file

from maskstream.train import Recipe
from maskstream.train.core.distributed import gather_rows, process_group, rank, world_size
from maskstream.train.core.optimiser import OptimiserConfig
from maskstream.train.core.parallel import divide, wrap_for_ranks
from maskstream.train.core.step import Stepper, StepSettings

RANKS = 2
CPU = torch.device("cpu")


def gradient(recipe, split, *, parallel="ddp", accumulate=1):
    """The gradient of the first RANKS x accumulate x batch_size samples, of all parameters in one vector."""
    share = recipe.batch_size * RANKS // world_size() // (1 if accumulate == 1 else RANKS)
    with closing(recipe.loader(split, steps=8, device="cpu", threads=1, batch_size=share)) as loader:
        batches = loader.repeat()
        micro_batches = [next(batches) for _ in range(accumulate)]
    model = recipe.build(seed=1)
    if parallel == "fsdp":
        divide(model, CPU)
    optimiser, found = torch.optim.SGD(model.parameters()), []
    optimiser.register_step_pre_hook(
        lambda *_: found.append(
            torch.cat([gather_rows(p.grad).flatten() for p in model.parameters() if p.grad is not None])
        )
    )
    stepper = Stepper(model, wrap_for_ranks(model, CPU), optimiser, OptimiserConfig(), StepSettings(device=CPU, seed=0))
    stepper.step(micro_batches, number=0, lr=0.0, asked_to_stop=False)
    return found[0].clone()


def main():
    torch.set_num_threads(1)
    out, parallel, recipes = sys.argv[1:]
    with process_group("cpu"):
        made = {
            name: gradient(Recipe.from_dict(recipe), split, parallel=parallel)
            for name, (recipe, split) in json.loads(recipes).items()
        }
        if rank() == 0:
            save_file(made, out)


if __name__ == "__main__":
    main()
