"""The noise of a diffusion model: how much of it each time holds, and what a sample looks like in it.

Ho et al. (2020): x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise, a_t the share of the sample's variance that is kept.

    noise    a_t                                                          source
    Linear   product of 1 - beta up to t, beta linear from 1e-4 to 0.02   Ho et al.; so do DiT-3D and FastDiT-3D
    Cosine   f(t + 1) / f(0), f(t) = cos^2(pi / 2 (t / times + s) / (1 + s))  Nichol and Dhariwal (2021), s = 0.008

Of 1000 linear times 525 hold a tenth of the sample or less, of the cosine ones 207: where times are few, or the steps
of a run, that is where there is least to learn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import pi

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...shards.config import Config


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise(Config, ABC):
    """`times` times, 0 the cleanest."""

    times: int = 1000

    def __post_init__(self) -> None:
        if self.times < 2:
            raise ValueError(f"a diffusion has 2 or more times, got {self.times}")

    @abstractmethod
    def kept(self) -> Tensor:
        """The share of a sample's variance that is left at each time: float64 (times,), falling from almost 1."""

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[int, npt.NDArray[np.float32]]:
        """A time, uniform, and standard normal noise of a shape, float32."""
        time = int(rng.integers(self.times))
        return time, rng.standard_normal(shape, dtype=np.float32)

    def noised(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Samples (B, ...) with their noise at times int64 (B,): float32, of one shape with `clean`."""
        kept = self.kept().to(clean.device)[time].view(-1, *(1,) * (clean.ndim - 1))
        return kept.sqrt().float() * clean + (1 - kept).sqrt().float() * noise


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearNoise(Noise):
    """The variance that a time adds rises linearly from `first` to `last`."""

    first: float = 1e-4
    last: float = 0.02

    def __post_init__(self) -> None:
        Noise.__post_init__(self)
        if not 0 < self.first <= self.last < 1:
            raise ValueError(f"0 < first <= last < 1 must hold for the variances, got {self.first} and {self.last}")

    def betas(self) -> Tensor:
        """The variance that each time adds: float64 (times,)."""
        return torch.linspace(self.first, self.last, self.times, dtype=torch.float64)

    def kept(self) -> Tensor:
        return torch.cumprod(1 - self.betas(), dim=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class CosineNoise(Noise):
    """What is kept falls along a squared cosine. `offset` keeps the first times from adding too little; a time adds at
    most the variance `most`, so that the last one keeps something.
    """

    offset: float = 0.008
    most: float = 0.999

    def __post_init__(self) -> None:
        Noise.__post_init__(self)
        if not 0 <= self.offset < 1 or not 0 < self.most < 1:
            raise ValueError(f"offset lies in [0, 1) and most in (0, 1), got {self.offset} and {self.most}")

    def kept(self) -> Tensor:
        at = torch.arange(self.times + 1, dtype=torch.float64) / self.times
        whole = torch.cos(pi / 2 * (at + self.offset) / (1 + self.offset)).square()
        return torch.cumprod((whole[1:] / whole[:-1]).clamp_min(1 - self.most), dim=0)
