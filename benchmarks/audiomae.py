"""Audio-MAE: what masks save of a training step.

    python benchmarks/audiomae.py [--rounds 3]

CPU time of one thread, the least of some rounds in turn, and floating point operations as PyTorch counts them, of a
forward and backward pass with the recipe's masks (0.8 hidden) and with every token visible to the encoder; targets and
decoder are the same in both.
"""

from __future__ import annotations

import argparse
import time

import torch
from machine import facts
from rich.console import Console
from rich.table import Table
from torch import Tensor

from maskstream.pages.report.pictures.voxels import step_flops
from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.stream.rng import sample_rng
from maskstream.train.models.masked_autoencoder import MaskedAutoencoder
from maskstream.train.recipes import named_recipe
from maskstream.train.recipes.audio import AudioRecipe

SOUNDS = {"audiomae-tiny": 32, "audiomae-base": 1}
"""Recipes, and how many sounds are in a step."""


def inputs_of(recipe: AudioRecipe, sounds: int) -> dict[str, tuple[Tensor, ...]]:
    """A step's inputs, masked and with all tokens visible."""
    tokens = recipe.tokens()
    shape = (tokens.frames // tokens.patch_frames, tokens.bins // tokens.patch_bins)
    grid = TokenGrid(axes=("time", "freq"), shape=shape, patch=recipe.patch)
    mask = recipe.mask.draw(grid, [sample_rng(0, 0, str(i), 0, "mask") for i in range(sounds)])
    spectrogram = torch.randn(sounds, tokens.frames, tokens.bins, generator=torch.Generator().manual_seed(0))
    everything = torch.arange(grid.size).repeat(sounds, 1)
    return {
        "none": (spectrogram, everything, mask.target, mask.weight),
        "0.8": (spectrogram, mask.visible, mask.target, mask.weight),
    }


def step_ms(model: MaskedAutoencoder, inputs: tuple[Tensor, ...]) -> float:
    """Processor milliseconds of a forward and a backward pass."""
    start = time.process_time()
    model(*inputs).backward()
    taken = time.process_time() - start
    model.zero_grad()
    return 1e3 * taken


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
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
        recipe = named_recipe(name)
        assert isinstance(recipe, AudioRecipe)
        model, inputs = recipe.build_model(), inputs_of(recipe, sounds)
        flops = {hidden: step_flops(model, i) / 1e9 for hidden, i in inputs.items()}
        turns = [{hidden: step_ms(model, i) for hidden, i in inputs.items()} for _ in range(rounds)]
        ms = {hidden: min(turn[hidden] for turn in turns) for hidden in inputs}
        for hidden, i in inputs.items():
            of_time, of_flops = ms[hidden] / ms["none"], flops[hidden] / flops["none"]
            row = (f"{ms[hidden]:.0f}", f"{of_time:.2f}", f"{1e3 / ms[hidden]:.2f}")
            table.add_row(
                name, str(sounds), hidden, str(i[1].shape[1]), *row, f"{flops[hidden]:.1f}", f"{of_flops:.2f}"
            )
    console.print(table)
    console.print(facts(("torch", "numpy")))


if __name__ == "__main__":
    main()
