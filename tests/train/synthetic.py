"""A loader of synthetic clips with the real loader's contract, and a recipe that is small enough for tests.

Scripts of ranks load this file by its path, so it imports nothing of the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from maskstream.pipelines import TokenGrid, VideoBatch, VideoClip
from maskstream.pipelines.augment import MultiScaleCrop
from maskstream.pipelines.masks import Mask, Tube
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.errors import ResumeError
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.models import VideoAutoencoderConfig

FRAMES, SIZE = 4, 32


class SyntheticLoader:
    """Moving gradients, a function of (seed, epoch, batch) only; one epoch an iteration, from where it stands."""

    def __init__(
        self,
        *,
        batches: int = 5,
        size: int = 4,
        seed: int = 0,
        mask: Mask | None = None,
        rank: int = 0,
        ranks: int = 1,
        uneven: bool = False,
    ):
        self.batches, self.size, self.seed = batches, size, seed
        self.mask = mask or Tube(ratio=0.75)
        self.rank, self.ranks = rank, ranks
        self.uneven = uneven
        self.epoch, self.batch = 0, 0
        self.before_batch: Callable[[int], None] = lambda made: None
        self.made = 0

    def __len__(self) -> int:
        return self.batches

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["seed"] != self.seed:
            raise ResumeError(f"saved with seed {state['seed']}, here {self.seed}")
        self.epoch, self.batch = state["epoch"], state["batch"]

    def stats(self) -> dict[str, Any]:
        return {**Stats(samples=self.made * self.size).as_dict(), "threads": 1}

    def __iter__(self) -> Iterator[VideoBatch]:
        for b in range(self.batch, self.batches):
            self.before_batch(self.made)
            batch = self.make(self.epoch, b)
            self.made += 1
            self.batch += 1
            if self.batch == self.batches:
                self.epoch, self.batch = self.epoch + 1, 0
            yield batch

    def make(self, epoch: int, b: int) -> VideoBatch:
        numbers = range(self.rank * self.size, (self.rank + 1) * self.size)
        rngs = [np.random.default_rng((self.seed, epoch, b, n)) for n in numbers]
        ramp = np.arange(SIZE)
        video = np.empty((self.size, FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
        for clip, rng in zip(video, rngs, strict=True):
            speed, phase = rng.uniform(1, 4), rng.uniform(0, 6, 3)
            for t in range(FRAMES):
                wave = np.sin((ramp[:, None, None] + 2 * ramp[None, :, None] + speed * t) / 9 + phase)
                clip[t] = 128 + 100 * wave
        mask = self.mask.draw(TokenGrid.video(FRAMES, SIZE, SIZE, tubelet=2, patch=8), rngs)
        if self.uneven:  # clip n weighs n + 1
            mask = replace(mask, weight=mask.weight * torch.tensor(numbers)[:, None].add(1.0))
        return VideoBatch(
            video=torch.from_numpy(video),
            mask=mask,
            flow=None,
            label=torch.full((self.size,), -1),
            key=[f"clip-{epoch}-{b}-{n}" for n in numbers],
            pts_s=torch.zeros(self.size, FRAMES, dtype=torch.float64),
        )


def small_recipe() -> Recipe[VideoBatch]:
    return Recipe(
        name="test",
        data=VideoData(
            clip=VideoClip(frames=FRAMES, stride=1, size=SIZE),
            mask=Tube(ratio=0.75),
            augment=MultiScaleCrop(),
            patch=8,
        ),
        batch_size=4,
        model=VideoAutoencoderConfig(width=32, depth=2, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2),
        optimiser=OptimiserConfig(max_grad_norm=1.0),
        schedule=ScheduleConfig(base_lr=0.3, min_lr=0.003, warmup=0.2, epochs=2),
    )
