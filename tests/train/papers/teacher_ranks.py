"""A rank that trains a small model that has a teacher, on a split.

    python teacher_ranks.py OUT RECIPE SETS_JSON DATA OPTIONS_JSON      with the environment that torchrun sets

OPTIONS_JSON: of the Trainer; "samples": of all ranks in a batch; "until"; "dies_at": the step in which this rank kills
itself before its teacher has followed.
"""

import json
import os
import signal
import sys
from contextlib import closing

import torch

from maskstream.train import Trainer
from maskstream.train.core.distributed import process_group, world_size
from maskstream.train.recipes import chosen_recipe


def run(out, name, sets, data, options):
    """Trains this rank; returns the step that it began after."""
    samples, until, dies_at = options.pop("samples"), options.pop("until", None), options.pop("dies_at", None)
    recipe = chosen_recipe(name, (*sets, f"batch_size={samples // world_size()}"))
    with closing(recipe.loader(data, steps=options["steps"], device="cpu", threads=1)) as loader:
        trainer = Trainer(recipe, loader, out, device="cpu", progress=False, **options)
        follow = trainer.model.follow

        def dies(step, steps):
            if step + 1 == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            follow(step, steps)

        trainer.model.follow = dies
        begun = trainer.step
        trainer.run(until)
    return begun


def main():
    torch.set_num_threads(1)
    out, name, sets, data, options = sys.argv[1:]
    with process_group("cpu"):
        begun = run(out, name, json.loads(sets), data, json.loads(options))
    print(f"begun after step {begun}", flush=True)


if __name__ == "__main__":
    main()
