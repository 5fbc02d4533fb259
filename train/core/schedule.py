"""The learning rate of each step: linear warm-up, then half a cosine; and how it grows with the batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...shards.config import Config


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig(Config):
    """`base_lr` and `min_lr` are for 256 samples a step and grow in proportion to the batch (Goyal et al., 2017, 2.1).

    Repeated views of a sample do not count, as in VideoMAE V2. warmup: the share of all steps in which the rate rises
    linearly from 0. The length of a run is `steps`, or `epochs` where steps is None.
    """

    base_lr: float
    min_lr: float = 0.0
    warmup: float = 0.05
    epochs: int = 1
    steps: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_lr <= self.base_lr or self.base_lr == 0:
            raise ValueError(f"0 <= min_lr <= base_lr and base_lr > 0 must hold, got {self.min_lr} and {self.base_lr}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the steps in [0, 1), got {self.warmup}")
        if self.epochs < 1 or (self.steps is not None and self.steps < 1):
            raise ValueError(f"epochs and steps are at least 1, got epochs={self.epochs}, steps={self.steps}")

    def run_length(self, steps_per_epoch: int) -> int:
        """How many steps a run has."""
        return self.epochs * steps_per_epoch if self.steps is None else self.steps

    def lr(self, step: int, total: int, samples: int) -> float:
        """The rate of step `step` (counted from 0) of `total`, with `samples` samples a step over all ranks."""
        scale = samples / 256
        warm = int(self.warmup * total)
        if step < warm:
            return self.base_lr * scale * (step + 1) / (warm + 1)
        done = (step - warm) / max(total - warm, 1)
        return scale * (self.min_lr + (self.base_lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))
