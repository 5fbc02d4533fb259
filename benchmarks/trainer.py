"""CPU time of a training step of VideoMAE: this package's model, transformers' and dual masks, in turns.

    python benchmarks/trainer.py --sizes small tiny --rounds 5

A step is a forward pass, a backward pass and fused AdamW, in one thread, on random clips with tube masks at 0.9. Each
model has a process of its own; a figure is a median over rounds, and ratios are within a round. All have the same
weights and give the same loss. This package's model trains as in its loop, which keeps freed memory
(train/core/process.py), and normalises its uint8 clips; transformers' gets normalised clips, and "kept" is the same
with memory kept. "dual" is this package's model with VideoMAE V2's masks, which decode half of the tokens.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEForPreTraining
from turns import Apart, in_turns

from maskstream.pipelines import TokenGrid, VideoBatch
from maskstream.pipelines.masks import Dual, Mask, Tube
from maskstream.train.core.process import keep_memory
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
OURS = ("maskstream", "dual")
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


def same(ours: Tensor, theirs: Tensor) -> None:
    """ValueError if two losses are not the same, up to rounding."""
    if abs(ours.item() - theirs.item()) > 1e-3:
        raise ValueError(f"the models' losses are {ours.item():g} and {theirs.item():g}; they should be the same")


def model_and_loss(owner: str, size: str) -> tuple[nn.Module, Callable[[], Tensor]]:
    """A model and its loss on its clips. owner: "maskstream", "dual" or "transformers"."""
    config, grid, n = SIZES[size]
    ours = config.build({"video": grid})
    batch = batch_of(grid, Dual(encoder=Tube(ratio=0.9)) if owner == "dual" else Tube(ratio=0.9), n)
    if batch.mask is None:
        raise ValueError("the clips have no masks")
    if owner == "transformers":
        pixels, masked = batch.pixel_values(), batch.mask.masked
        theirs = VideoMAEForPreTraining(VideoMAEConfig(**to_hf_config(ours)))
        theirs.load_state_dict(to_hf(ours))
        epsilons = replace(config, eps=1e-12, decoder_eps=1e-5).build({"video": grid})
        epsilons.load_state_dict(ours.state_dict())
        same(epsilons(batch).loss(), theirs(pixels, bool_masked_pos=masked).loss)
        return theirs, lambda: theirs(pixels, bool_masked_pos=masked).loss
    return ours, lambda: ours(batch).loss()


@contextmanager
def made(name: str, size: str, kind: str) -> Iterator[Step]:
    """A training step in the process that does it. name: that of a model, and " kept" after another's."""
    torch.set_num_threads(1)
    owner, _, kept = name.partition(" ")
    with keep_memory(torch.device("cpu")) if kept or owner in OURS else nullcontext():
        yield step_of(*model_and_loss(owner, size), TYPES[kind])


def compared(size: str, kind: str, rounds: int) -> dict[str, float | str]:
    """One row: milliseconds a clip, and ratios within a round, all medians."""
    others = ["transformers", "transformers kept"]
    with ExitStack() as stack:
        steps = {name: stack.enter_context(Apart(made, name, size, kind)) for name in ("maskstream", *others, "dual")}
        seconds = in_turns(steps, rounds)
    row: dict[str, float | str] = {"variant": f"{size} {kind}"}
    row |= {f"{name} ms/clip": round(1e3 * median(seconds[name]) / SIZES[size][2], 1) for name in seconds}
    row |= {f"maskstream / {name}": round(ratio(seconds["maskstream"], seconds[name]), 3) for name in others}
    return {**row, "gain of dual": round(ratio(seconds["maskstream"], seconds["dual"]), 3)}


def ratio(one: list[float], other: list[float]) -> float:
    """The median over rounds of one's time to the other's."""
    return median(a / b for a, b in zip(one, other, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--types", nargs="+", choices=TYPES, default=list(TYPES))
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    for size in chosen.sizes:
        for dtype in chosen.types:
            rounds = chosen.rounds if size == "small" else 4 * chosen.rounds
            print(json.dumps(compared(size, dtype, rounds)), flush=True)


if __name__ == "__main__":
    main()
