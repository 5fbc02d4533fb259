"""What the training loop costs beyond the step itself: CPU time of a Trainer's step and of the bare step, in turns.

    python benchmarks/training_loop.py [--recipe videomae-tiny] [--steps 60]

The bare step is forward, backward, clipping and AdamW on the same batches in the same precision, with one thread. The
batches are made before, so the loader costs nothing. Counting the work of a step, once per process, is left out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.stream.stats import Stats
from maskstream.train import Recipe, Trainer, named_recipe
from maskstream.train.core import loop
from maskstream.train.core.optimiser import build_optimiser, set_lr
from maskstream.train.core.process import chosen_precision

CPU = torch.device("cpu")
WARM = 10


def made_up(recipe: Recipe[Any], number: int) -> VideoBatch:
    """A batch of noise with the recipe's masks."""
    clip, grid = recipe.data.clip, recipe.data.grids["video"]
    rngs = [np.random.default_rng((number, i)) for i in range(recipe.batch_size)]
    pixels = [rng.integers(0, 256, (clip.frames, clip.size, clip.size, 3), dtype=np.uint8) for rng in rngs]
    return VideoBatch(
        video=torch.from_numpy(np.stack(pixels)),
        mask=recipe.data.mask.draw(grid, rngs),
        flow=None,
        label=torch.full((recipe.batch_size,), -1),
        key=[str(i) for i in range(recipe.batch_size)],
        pts_s=torch.zeros(recipe.batch_size, clip.frames, dtype=torch.float64),
    )


class Alternating:
    """A loader that does a bare step between two steps of the trainer, and times both."""

    epoch = 0

    def __init__(self, recipe: Recipe[Any], steps: int) -> None:
        self.recipe, self.steps = recipe, steps
        self.batches = [made_up(recipe, n) for n in range(4)]
        self.model = recipe.build(seed=0)
        self.optimiser = build_optimiser(self.model, recipe.optimiser)
        self.dtype = chosen_precision("auto", CPU)
        self.bare_s: list[float] = []
        self.loop_s: list[float] = []

    def __len__(self) -> int:
        return self.steps

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError("a benchmark does not resume")

    def stats(self) -> dict[str, Any]:
        return {**Stats().as_dict(), "threads": 1}

    def __iter__(self) -> Iterator[VideoBatch]:
        for number in range(self.steps):
            batch = self.batches[number % len(self.batches)]
            begun = time.process_time()
            self.bare_step(batch)
            given = time.process_time()
            yield batch
            self.bare_s.append(given - begun)
            self.loop_s.append(time.process_time() - given)

    def bare_step(self, batch: VideoBatch) -> None:
        set_lr(self.optimiser, 1e-4)
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            loss = self.model(batch).loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimiser.max_grad_norm or 1e9)
        self.optimiser.step()
        self.optimiser.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="videomae-tiny", help="a recipe of video without flow")
    parser.add_argument("--steps", type=int, default=60)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    loop.MEASURED_AFTER = wanted.steps + 1
    recipe = named_recipe(wanted.recipe)
    loader = Alternating(recipe, wanted.steps)
    with tempfile.TemporaryDirectory() as out:
        # a step more than are timed, since the last one saves
        Trainer(recipe, loader, Path(out), steps=wanted.steps, save_every=10**9, progress=False).run()
    ratios = [there / bare for there, bare in zip(loader.loop_s[WARM:], loader.bare_s[WARM:], strict=False)]
    found = {
        "recipe": recipe.name,
        "steps": len(ratios),
        "bare_ms": round(1000 * median(loader.bare_s[WARM:]), 2),
        "loop_ms": round(1000 * median(loader.loop_s[WARM:]), 2),
        "overhead": round(median(ratios) - 1, 4),
        "quartiles": [round(float(np.quantile(ratios, q)) - 1, 4) for q in (0.25, 0.75)],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
