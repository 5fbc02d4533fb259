"""Processor time of a training step of tiny recipes, in one checkout or in two that take turns.

    python benchmarks/every_step.py mae-tiny bert-tiny
    python benchmarks/every_step.py --before ../old --rounds 15 [RECIPE ...]

A step is that of a Trainer, with one thread, on the same batches, which the loader has made before. The split is the
small one that the tests write, with the recipe's own sizes but four samples a step. Without names it takes every tiny
recipe that both checkouts have. A checkout has one process, which runs in its folder with its code; in every round
each recipe is measured in one and then in the other, and the first of the two changes. Printed are the medians over the
rounds in ms, that of the ratios within a round, and the ratio's quartiles.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from turns import compare, serve

from maskstream.pipelines.stream.stats import Stats
from maskstream.train import Trainer
from maskstream.train.recipes import RECIPES, chosen_recipe

WARM, TIMED = 3, 6
"""The steps before and in the figure, together fewer than those after which the loop counts a step's work."""
SAMPLES = 4
"""Those of a step: the split is small."""
NEEDS = ("model.vq", "model.teacher")
"""What a recipe takes from another run, and does without here."""
FITS = {"mesh": ("model.channels=2", "model.dims=2")}
"""What fits a recipe to the small split of its modality, by the modality."""


class Repeated:
    """A loader that hands out the same batches, and notes the processor time at which each was asked for."""

    epoch = 0

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches
        self.asked_s: list[float] = []

    def __len__(self) -> int:
        return WARM + TIMED + 1

    def __iter__(self) -> Iterator[Any]:
        for n in range(len(self)):
            self.asked_s.append(time.process_time())
            yield self.batches[n % len(self.batches)]

    def state_dict(self) -> dict[str, Any]:
        """Nothing: no run is resumed."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes nothing."""

    def stats(self) -> dict[str, Any]:
        """Those of a loader that has done nothing."""
        return {**Stats().as_dict(), "threads": 1}


def measure(name: str, folder: Path) -> float:
    """The median processor time of a step in ms; the splits that it writes into the folder are kept."""
    sys.path.insert(0, str(Path.cwd()))
    from tests.pipelines.every_modality import write_split

    recipe = chosen_recipe(name)
    fields = recipe.to_dict(defaults=True)["model"]
    modality = recipe.data.modality
    absent = [f"{need}=null" for need in NEEDS if need.partition(".")[2] in fields]
    recipe = chosen_recipe(name, [*absent, *FITS.get(modality, ()), f"batch_size={SAMPLES}"])
    split = folder / modality / "split"
    if not split.exists():
        write_split(modality, split.parent)
    with (
        tempfile.TemporaryDirectory() as run,
        closing(recipe.loader(split, steps=8, seed=0, device="cpu", threads=1)) as loader,
    ):
        repeated = Repeated(list(islice(loader.repeat(), 2)))
        Trainer(recipe, repeated, Path(run) / "run", steps=WARM + TIMED + 1, progress=False).run()
    seconds = [b - a for a, b in zip(repeated.asked_s, repeated.asked_s[1:], strict=False)]
    return 1000 * median(seconds[WARM:])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("recipes", nargs="*", help="names of recipes; all tiny ones of both checkouts by default")
    parser.add_argument("--before", type=Path, help="another checkout to compare with this folder")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tiny = [name for name in RECIPES if "-tiny" in name]
    if args.before:
        compare(Path(__file__), args.before, args.recipes, args.rounds, "recipe")
        return
    with tempfile.TemporaryDirectory() as folder:
        if args.serve:
            serve(tiny, lambda name: measure(name, Path(folder)))
        else:
            names = args.recipes or tiny
            print(json.dumps({name: {"cpu ms": measure(name, Path(folder))} for name in names}))


if __name__ == "__main__":
    main()
