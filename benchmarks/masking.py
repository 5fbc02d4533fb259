"""Processor time of a training step of VideoMAE at several masking ratios, in turns.

    python benchmarks/masking.py --sizes tiny small --rounds 1 --out masking.json

Steps, models, clips and types are those of trainer.py: forward, backward and fused AdamW in one thread. A ratio of 0
stands for one hidden token in each time step, without which there would be nothing to predict. "dual" hides 0.9 and
reconstructs half of the tokens (VideoMAE V2). Each seed has its own weights; every round runs each variant
once, in another order, and a figure is the median of the ratio to the step at 0 within a round.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median

import torch
from machine import facts
from trainer import SIZES, TYPES, Step, batch_of, step_of
from turns import in_turns

from maskstream.pipelines import TokenGrid
from maskstream.pipelines.masks import Dual, Mask, Tube

RATIOS = (0.0, 0.5, 0.75, 0.9)


def masks(grid: TokenGrid) -> dict[str, Mask]:
    """The masks that are compared, by name."""
    plane = grid.size // grid.shape[0]
    tubes: dict[str, Mask] = {f"{ratio:g}": Tube(ratio=max(ratio, 1 / plane)) for ratio in RATIOS}
    return {**tubes, "dual": Dual(encoder=Tube(ratio=0.9))}


def steps_of(size: str, dtype: torch.dtype, seed: int) -> dict[str, Step]:
    """The training step of each mask; all have the same initial weights."""
    config, grid, n = SIZES[size]
    made = {}
    for name, mask in masks(grid).items():
        model, batch = config.build({"video": grid}, seed=seed), batch_of(grid, mask, n)
        made[name] = step_of(model, lambda model=model, batch=batch: model(batch).loss(), dtype)
    return made


def compared(size: str, dtype: str, rounds: int, seeds: int) -> dict[str, object]:
    """One row: milliseconds a clip, and for each seed the median share of the step at ratio 0."""
    n = SIZES[size][2]
    shares: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in range(seeds):
        taken = in_turns(steps_of(size, TYPES[dtype], seed), rounds)
        for name, spent in taken.items():
            share = median(a / b for a, b in zip(spent, taken["0"], strict=True))
            shares.setdefault(name, []).append(round(share, 3))
            seconds.setdefault(name, []).extend(spent)
    return {
        "variant": f"{size} {dtype}",
        "ms a clip": {name: round(1e3 * median(found) / n, 1) for name, found in seconds.items()},
        "share of the step at 0, by seed": shares,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["tiny", "small"])
    parser.add_argument("--types", nargs="+", choices=TYPES, default=["fp32"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size in chosen.sizes:
        for dtype in chosen.types:
            rows.append(compared(size, dtype, chosen.rounds if size == "small" else 4 * chosen.rounds, chosen.seeds))
            print(json.dumps(rows[-1]), flush=True)
    if chosen.out:
        chosen.out.write_text(json.dumps({"machine": facts(("torch",)), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
