"""Audio-MAE: the cost of a training step with and without masks.

    python benchmarks/audiomae.py [--rounds 3]

It measures a forward and backward pass with the recipe's masks (0.8 hidden), and with every token visible to the
encoder; targets and decoder are the same in both. Given are the CPU time of one thread, the minimum over alternating
rounds, and the floating point operations counted by PyTorch.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch
from machine import facts
from rich.console import Console
from rich.table import Table

from maskstream.pipelines.modalities.audio.batch import AudioBatch
from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.pipelines.stream.rng import sample_rng
from maskstream.train.core.model import Model
from maskstream.train.core.recipe import Recipe
from maskstream.train.papers.audiomae.recipe import audiomae_base, audiomae_tiny
from maskstream.train.papers.fastdit3d.evaluate import step_flops

RECIPES = {"audiomae-tiny": audiomae_tiny, "audiomae-base": audiomae_base}
SOUNDS = {"audiomae-tiny": 32, "audiomae-base": 1}
"""The batch size of each recipe, in sounds."""


def batches_of(recipe: Recipe[AudioBatch], sounds: int) -> dict[str, AudioBatch]:
    """A step's batch, masked and with all tokens visible."""
    grid = recipe.data.grids["audio"]
    if not isinstance(recipe.data, AudioData) or recipe.data.mask is None:
        raise ValueError(f"the recipe must have audio data with a mask, got {recipe.name}")
    mask = recipe.data.mask.draw(grid, [sample_rng(0, 0, str(i), 0, "mask") for i in range(sounds)])
    size = (n * step for n, step in zip(grid.shape, grid.patch, strict=True))
    spectrogram = torch.randn(sounds, *size, generator=torch.Generator().manual_seed(0))
    zeros = torch.zeros(sounds, dtype=torch.int64)
    masked = AudioBatch(
        waveform=spectrogram[:, None],
        length=zeros,
        spectrogram=spectrogram,
        mask=mask,
        label=zeros,
        key=[""] * sounds,
        start_s=zeros.double(),
    )
    everything = replace(mask, visible=torch.arange(grid.size).repeat(sounds, 1))
    return {"none": replace(masked, mask=everything), "0.8": masked}


def step_ms(model: Model[AudioBatch], batch: AudioBatch) -> float:
    """Processor milliseconds of a forward and a backward pass."""
    start = time.process_time()
    model(batch).loss().backward()
    taken = time.process_time() - start
    model.zero_grad()
    return 1e3 * taken


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds in which both take turns")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    console = Console(width=120, highlight=False)
    table = Table(title="Audio-MAE: a training step, CPU and float32")
    for name in (
        "recipe",
        "sounds",
        "hidden",
        "visible",
        "CPU ms",
        "of unmasked",
        "steps/CPU s",
        "GFLOP",
        "of unmasked",
    ):
        table.add_column(name, justify="right")
    for name, sounds in SOUNDS.items():
        recipe = RECIPES[name]()
        model, batches = recipe.build(), batches_of(recipe, sounds)
        flops = {hidden: step_flops(model, i) / 1e9 for hidden, i in batches.items()}
        turns = [{hidden: step_ms(model, i) for hidden, i in batches.items()} for _ in range(rounds)]
        ms = {hidden: min(turn[hidden] for turn in turns) for hidden in batches}
        for hidden, i in batches.items():
            visible = i.mask.visible.shape[1] if i.mask else 0
            of_time, of_flops = ms[hidden] / ms["none"], flops[hidden] / flops["none"]
            row = (f"{ms[hidden]:.0f}", f"{of_time:.2f}", f"{1e3 / ms[hidden]:.2f}")
            table.add_row(name, str(sounds), hidden, str(visible), *row, f"{flops[hidden]:.1f}", f"{of_flops:.2f}")
    console.print(table)
    console.print(facts(("torch", "numpy")))


if __name__ == "__main__":
    main()
