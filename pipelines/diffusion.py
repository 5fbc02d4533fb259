"""The noise of a diffusion model: how much of it each time holds, and what a sample looks like in it.

Ho et al. (2020): x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise, a_t the product of 1 - beta up to t, where beta rises
linearly from 1e-4 to 0.02 in 1000 times; so do DiT-3D and FastDiT-3D.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearNoise:
    """`times` times, 0 the cleanest; the variance that a time adds rises linearly from `first` to `last`."""

    times: int = 1000
    first: float = 1e-4
    last: float = 0.02

    def __post_init__(self) -> None:
        if self.times < 2:
            raise ValueError(f"a diffusion has 2 or more times, got {self.times}")
        if not 0 < self.first <= self.last < 1:
            raise ValueError(f"0 < first <= last < 1 must hold for the variances, got {self.first} and {self.last}")

    def betas(self) -> Tensor:
        """The variance that each time adds: float64 (times,)."""
        return torch.linspace(self.first, self.last, self.times, dtype=torch.float64)

    def kept(self) -> Tensor:
        """The share of a sample's variance that is left at each time: float64 (times,), falling from almost 1."""
        return torch.cumprod(1 - self.betas(), dim=0)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[int, npt.NDArray[np.float32]]:
        """A time, uniform, and standard normal noise of a shape, float32."""
        time = int(rng.integers(self.times))
        return time, rng.standard_normal(shape, dtype=np.float32)

    def noised(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Samples (B, ...) with their noise at times int64 (B,): float32, of one shape with `clean`."""
        kept = self.kept().to(clean.device)[time].view(-1, *(1,) * (clean.ndim - 1))
        return kept.sqrt().float() * clean + (1 - kept).sqrt().float() * noise
