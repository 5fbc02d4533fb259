"""Steps of SALT with targets of shards beside steps that compute them, and what writing them costs.

    python benchmarks/targets.py runs/videomae-tiny data/shards/moving-fashion-mnist/val

Both kinds of steps see the same clips and masks, in turns of a few steps each, and their losses are compared. Seconds
are those of processors, of the loader, the loss, the gradients and the optimiser together.
"""

import argparse
import resource
import shutil
import tempfile
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

from maskstream.pipelines.modalities.data import SplitConfig
from maskstream.pipelines.modalities.split import Split
from maskstream.preprocess.executors.local import LocalExecutor
from maskstream.preprocess.job.ledger import run_tasks
from maskstream.shards.progress import Progress
from maskstream.train.core.recipe import Recipe
from maskstream.train.recipes import chosen_recipe
from maskstream.train.write_targets import TargetsJob, write_targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run of the teacher, a masked autoencoder of video")
    parser.add_argument("data", help="a split of videos")
    parser.add_argument("--recipe", default="salt-tiny")
    parser.add_argument("--set", action="append", default=[], help="fields of the recipe")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="steps of each kind in a round")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    args = parser.parse_args()
    torch.set_num_threads(1)
    fields = [*args.set, f"model.teacher={args.run}"]
    folder = Path(tempfile.mkdtemp(dir="."))
    try:
        job = TargetsJob(args.run, args.data, folder / "t", recipe=chosen_recipe(args.recipe, fields), dtype=args.dtype)
        before = time.process_time()
        with job.writing():
            run_tasks(LocalExecutor(0), write_targets, job.tasks, job, Progress(), phase="targets", unit="samples")
        spent, counts = time.process_time() - before, job.counts()
        samples = counts["samples"]
        print(
            f"writing: {1e3 * spent / samples:.1f} CPU ms and {counts['bytes'] / samples / 1e3:.1f} kB a sample, of "
            f"{samples:,} samples in {args.dtype}"
        )
        stored = [*fields, f"data.targets={folder / 't'}"]
        print(f"reading: {1e6 * reading(chosen_recipe(args.recipe, stored), args.data):.0f} CPU us a clip")
        compare(args, [*fields, "data.cycle=1"], stored)
    finally:
        shutil.rmtree(folder)
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def reading(recipe: Recipe[Any], data: str, clips: int = 400) -> float:
    """The CPU seconds of finding and reading the targets of a clip into new memory."""
    split = Split.open(data, recipe.data.modality, device=torch.device("cpu"))
    assert isinstance(recipe.data, SplitConfig)
    reader, manifest = recipe.data.resolved(split).sampler(split).targets, split.manifest
    assert reader is not None
    before = time.process_time()
    for number in range(clips):
        index = number % len(manifest)
        reader.read(manifest, index, reader.place(manifest, index, 0)).copy()
    return (time.process_time() - before) / clips


def compare(args: argparse.Namespace, computed: list[str], stored: list[str]) -> None:
    """Prints the steps a second of both, round by round, and the largest difference of their losses."""
    recipes = [chosen_recipe(args.recipe, fields) for fields in (computed, stored)]
    models = [recipe.build(seed=0) for recipe in recipes]
    optimisers = [torch.optim.AdamW([p for p in model.parameters() if p.requires_grad]) for model in models]
    losses: list[list[float]] = [[], []]
    ratios = []
    steps = args.steps * (args.rounds + 1)
    loaders = [recipe.loader(args.data, seed=0, device="cpu", threads=1, steps=steps) for recipe in recipes]
    with closing(loaders[0]), closing(loaders[1]):
        batches = [iter(loader) for loader in loaders]
        for number in range(args.rounds + 1):
            spent = []
            for kind in (0, 1) if number % 2 else (1, 0):
                before = time.process_time()
                for batch in islice(batches[kind], args.steps):
                    loss = models[kind](batch).loss()
                    loss.backward()
                    optimisers[kind].step()
                    optimisers[kind].zero_grad()
                    losses[kind].append(loss.item())
                spent.append((kind, time.process_time() - before))
            own = dict(spent)
            if number:  # the first round warms up
                ratios.append(own[0] / own[1])
                rates = ", ".join(
                    f"{args.steps / own[kind]:.2f} {what}" for kind, what in ((0, "computed"), (1, "stored"))
                )
                print(f"round {number}: steps a CPU second {rates}; {ratios[-1]:.2f} times")
    apart = max(abs(a / b - 1) for a, b in zip(*losses, strict=True))
    print(
        f"median {median(ratios):.2f} times; losses of {len(losses[0])} steps differ by at most {apart:.1e} of theirs"
    )


if __name__ == "__main__":
    main()
