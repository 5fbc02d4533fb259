"""Noise schedules of diffusion models.

Ho et al. (2020): x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise, where a_t is the fraction of the sample's variance kept.

    noise    a_t                                                          source
    Linear   product of 1 - beta up to t, beta linear from 1e-4 to 0.02   Ho et al.; also DiT-3D and FastDiT-3D
    Cosine   f(t + 1) / f(0), f(t) = cos^2(pi / 2 (t / times + s) / (1 + s))  Nichol and Dhariwal (2021), s = 0.008

Of 1000 times, 525 keep at most a tenth of the variance with the linear schedule and 207 with the cosine schedule. A
model learns least from such times, which matters in short runs and with few times.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import pi
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from maskstream.shards.arrays import Float32s
from maskstream.shards.config import Config
from maskstream.shards.limits import Bounds, ProperProportion


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise(Config, ABC):
    """A noise schedule with `times` times; time 0 has the least noise."""

    times: Annotated[int, Bounds(min=2)] = 1000
    """Number of times."""

    @abstractmethod
    def kept(self) -> Tensor:
        """Return the fraction of the sample's variance kept at each time, float64 (times,), decreasing
        from almost 1.
        """

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[int, Float32s]:
        """Draw a uniform time, and standard normal noise of the given shape, float32."""
        time = int(rng.integers(self.times))
        return time, rng.standard_normal(shape, dtype=np.float32)

    def noised(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return the noised samples x_t, float32 (B, ...), from `clean` and `noise` (B, ...) and `time`, int64 (B,)."""
        kept = self.kept().to(clean.device)[time].view(-1, *(1,) * (clean.ndim - 1))
        return kept.sqrt().float() * clean + (1 - kept).sqrt().float() * noise


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearNoise(Noise):
    """Noise schedule whose added variance beta rises linearly.

    Attributes:
        first: Beta at the first time.
        last: Beta at the last time.
    """

    first: float = 1e-4
    last: float = 0.02

    def validate(self) -> None:
        if not 0 < self.first <= self.last < 1:
            raise ValueError(
                f"first and last must satisfy 0 < first <= last < 1, got first={self.first} and last={self.last}"
            )

    def betas(self) -> Tensor:
        """Return the variance added at each time, float64 (times,)."""
        return torch.linspace(self.first, self.last, self.times, dtype=torch.float64)

    def kept(self) -> Tensor:
        return torch.cumprod(1 - self.betas(), dim=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class CosineNoise(Noise):
    """Noise schedule whose kept variance falls along a squared cosine.

    Attributes:
        offset: s of the formula; it keeps the first times from adding too little noise.
        most: Largest variance that one time adds, so that the last time still keeps some of the sample.
    """

    offset: ProperProportion = 0.008
    most: Annotated[float, Bounds(above=0, below=1)] = 0.999

    def kept(self) -> Tensor:
        at = torch.arange(self.times + 1, dtype=torch.float64) / self.times
        whole = torch.cos(pi / 2 * (at + self.offset) / (1 + self.offset)).square()
        return torch.cumprod((whole[1:] / whole[:-1]).clamp_min(1 - self.most), dim=0)
