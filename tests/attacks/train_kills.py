"""Kills `maskstream train` at random moments: the same command goes on, to the same metrics and weights, bit by bit."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import torch
from safetensors.numpy import load_file

from maskstream.train import read_metrics, train
from maskstream.train.recipes import chosen_recipe

from ..pipelines.every_modality import write_split
from .kills import Job, kills
from .where import HERE, Where

STEPS = 12
SMALL = [
    *("data.size=32", "data.patch=8", "batch_size=2", "model.width=32", "model.depth=1", "model.heads=2"),
    *("model.decoder_width=16", "model.decoder_depth=1", "model.decoder_heads=2"),
]


def train_small(data: str, out: Path, where: Where = HERE) -> None:
    """The command's work, in this process and with one thread."""
    torch.set_num_threads(1)
    where.enter()
    recipe = chosen_recipe("mae-tiny", SMALL)
    train(recipe, data, out, steps=STEPS, save_every=2, device="cpu", threads=1, progress=False)


def outcome(out: Path) -> dict[str, object]:
    """All that a run leaves but how long its steps took."""
    rows = [(m.step, m.epoch, m.loss, m.parts, m.lr, m.grad_norm) for m in read_metrics(out / "metrics.jsonl")]
    weights = load_file(out / "model.safetensors")
    return {"metrics": rows, **{name: value.tobytes() for name, value in weights.items()}}


def is_finished(out: Path) -> bool:
    """Whether the run has written its last file."""
    return (out / "model.safetensors").exists()


def attack(count: int, seed: int, folder: Path, where: Where = HERE) -> Counter[str]:
    """Kills the training of a small model on images `count` times."""
    data = where.copied(write_split("image", (folder if where.store != "http" else where.root) / "data"))
    return kills(
        Job(run=partial(train_small, data, where=where), outcome=outcome, finished=is_finished), count, seed, folder
    )
