"""Processor time of a training step of tiny recipes, as JSON; `before_after.py` compares it between two checkouts.

    python benchmarks/every_step.py mae-tiny bert-tiny
    python benchmarks/before_after.py --before ../old --after . -- $PWD/benchmarks/every_step.py mae-tiny bert-tiny

A step is that of a Trainer, with one thread, on the same batches, which the loader has made before. The split is the
small one that the tests write, with the recipe's own sizes but four samples a step.
"""

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

from maskstream.pipelines.stream.stats import Stats
from maskstream.train import Trainer
from maskstream.train.recipes import chosen_recipe

WARM, TIMED = 3, 6
"""The steps before and in the figure, together fewer than those after which the loop counts a step's work."""
SAMPLES = 4
"""Those of a step: the split is small."""
NEEDS = ("model.vq", "model.teacher")
"""What a recipe takes from another run, and does without here."""


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
    """The median processor time of a step in ms."""
    sys.path.insert(0, str(Path.cwd()))
    from tests.pipelines.every_modality import write_split

    recipe = chosen_recipe(name)
    fields = recipe.to_dict(defaults=True)["model"]
    absent = [f"{need}=null" for need in NEEDS if need.partition(".")[2] in fields]
    recipe = chosen_recipe(name, [*absent, f"batch_size={SAMPLES}"])
    split = write_split(recipe.data.modality, folder / name / "split")
    with closing(recipe.loader(split, steps=8, seed=0, device="cpu", threads=1)) as loader:
        repeated = Repeated(list(islice(loader.repeat(), 2)))
    Trainer(recipe, repeated, folder / name / "run", steps=WARM + TIMED + 1, progress=False).run()
    seconds = [b - a for a, b in zip(repeated.asked_s, repeated.asked_s[1:], strict=False)]
    return 1000 * median(seconds[WARM:])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("recipes", nargs="+", help="names of recipes that the small split of their modality fits")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({name: {"cpu ms": measure(name, Path(folder))} for name in parser.parse_args().recipes}))


if __name__ == "__main__":
    main()
