"""Processor time of a training step of VideoMAE: this package's model, transformers' and dual masks, in turns.

    python benchmarks/trainer.py --sizes small tiny --rounds 5 --out trainer.json

A step is a forward pass, a backward pass and fused AdamW, in one thread, on random clips with tube masks at 0.9. Every
round runs each model once, in another order, and a figure is the median of the ratio within a round, so a machine that
slows down slows all. This package's model gets uint8 clips and normalises what it needs; transformers' gets clips that
are normalised already, which is not charged to it. Both have the same weights and give the same loss. "dual" is this
package's model with VideoMAE V2's masks, which decode half of the tokens.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from machine import facts
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEForPreTraining
from turns import in_turns

from maskstream.pipelines import TokenGrid, VideoBatch
from maskstream.pipelines.masks import Dual, Mask, Tube
from maskstream.train.models import VideoAutoencoderConfig, to_hf, to_hf_config

SIZES = {
    "small": (VideoAutoencoderConfig(), TokenGrid.video(16, 224, 224), 2),
    "tiny": (
        VideoAutoencoderConfig(width=192, depth=4, heads=3, decoder_width=96, decoder_depth=2, decoder_heads=3),
        TokenGrid.video(8, 112, 112, patch=14),
        8,
    ),
}
"""The model, the token grid and the clips of a step. An even grid, which running cells need."""
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Step = Callable[[], float]


def batch_of(grid: TokenGrid, mask: Mask, n: int) -> VideoBatch:
    """Random clips with masks."""
    frames, height, width = (a * b for a, b in zip(grid.shape, grid.patch, strict=True))
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (n, frames, height, width, 3), generator=generator).to(torch.uint8)
    return VideoBatch(
        video=video,
        mask=mask.draw(grid, [np.random.default_rng(i) for i in range(n)]),
        flow=None,
        label=torch.full((n,), -1),
        key=[str(i) for i in range(n)],
        pts_s=torch.zeros(n, frames, dtype=torch.float64),
    )


def step_of(model: nn.Module, loss: Callable[[], Tensor], dtype: torch.dtype) -> Step:
    """A training step that returns its processor time in seconds."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> float:
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = loss()
        value.backward()
        optimiser.step()
        optimiser.zero_grad()
        return time.process_time() - start

    return step


def steps_of(size: str, dtype: torch.dtype) -> tuple[dict[str, Step], int]:
    """The steps that are compared, by name, and the clips of a step."""
    config, grid, n = SIZES[size]
    ours, dual = config.build({"video": grid}), config.build({"video": grid})
    theirs = VideoMAEForPreTraining(VideoMAEConfig(**to_hf_config(ours)))
    theirs.load_state_dict(to_hf(ours))
    plain, halved = batch_of(grid, Tube(ratio=0.9), n), batch_of(grid, Dual(encoder=Tube(ratio=0.9)), n)
    if plain.mask is None:
        raise ValueError("the clips have no masks")
    pixels, masked = plain.pixel_values(), plain.mask.masked
    epsilons = replace(config, eps=1e-12, decoder_eps=1e-5).build({"video": grid})
    epsilons.load_state_dict(ours.state_dict())
    apart = abs(epsilons(plain).loss().item() - theirs(pixels, bool_masked_pos=masked).loss.item())
    if apart > 1e-3:
        raise ValueError(f"the losses of both models are {apart:g} apart; they should be the same")
    return {
        "maskstream": step_of(ours, lambda: ours(plain).loss(), dtype),
        "transformers": step_of(theirs, lambda: theirs(pixels, bool_masked_pos=masked).loss, dtype),
        "dual": step_of(dual, lambda: dual(halved).loss(), dtype),
    }, n


def compared(size: str, dtype: str, rounds: int) -> dict[str, float | str]:
    """One row: milliseconds a clip, and ratios within a round, all medians."""
    steps, n = steps_of(size, TYPES[dtype])
    seconds = in_turns(steps, rounds)
    row: dict[str, float | str] = {"variant": f"{size} {dtype}"}
    row |= {f"{name} ms/clip": round(1e3 * median(seconds[name]) / n, 1) for name in seconds}
    ratio = [a / b for a, b in zip(seconds["maskstream"], seconds["transformers"], strict=True)]
    gain = [a / b for a, b in zip(seconds["maskstream"], seconds["dual"], strict=True)]
    return {**row, "maskstream / transformers": round(median(ratio), 3), "gain of dual": round(median(gain), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--types", nargs="+", choices=TYPES, default=list(TYPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size in chosen.sizes:
        for dtype in chosen.types:
            rows.append(compared(size, dtype, chosen.rounds if size == "small" else 4 * chosen.rounds))
            print(json.dumps(rows[-1]), flush=True)
    if chosen.out:
        whole = {"machine": facts(("torch", "transformers")), "rows": rows}
        chosen.out.write_text(json.dumps(whole, indent=2) + "\n")


if __name__ == "__main__":
    main()
