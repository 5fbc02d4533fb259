"""The learning rate schedule: linear warm-up, then half a cosine, scaled with the batch size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...shards.config import Config


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig(Config):
    """The settings of the schedule. base_lr and min_lr: for 256 samples per step; the learning rate is proportional to
    the batch size (Goyal et al., 2017, 2.1), in which repeated views of a sample do not count, as in VideoMAE V2.

    warmup: the share of all steps in which the rate rises linearly from 0. The length of a run is `steps`, or `epochs`
    if steps is None.
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
            raise ValueError(f"warmup is a share of the steps and must lie in [0, 1), got {self.warmup}")
        if self.epochs < 1 or (self.steps is not None and self.steps < 1):
            raise ValueError(f"epochs and steps must be at least 1, got epochs={self.epochs}, steps={self.steps}")

    def run_length(self, steps_per_epoch: int) -> int:
        """The number of steps of a run."""
        return self.epochs * steps_per_epoch if self.steps is None else self.steps

    def lr(self, step: int, total: int, samples: int) -> float:
        """The learning rate of step `step` (from 0) of `total`, with `samples` samples per step over all ranks."""
        scale = samples / 256
        warm = int(self.warmup * total)
        if step < warm:
            return self.base_lr * scale * (step + 1) / (warm + 1)
        done = (step - warm) / max(total - warm, 1)
        return scale * (self.min_lr + (self.base_lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))
