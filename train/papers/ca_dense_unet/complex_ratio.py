"""The ideal complex ratio mask: the factor that turns a mixture's spectrum into the clean one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from maskstream.shards.config import Config

Bound = Literal["parts", "magnitude", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComplexRatio(Config):
    """The mask M = S / Y of a clean spectrum S and a mixture Y, compressed to a bounded target for a model.

    Spectra are complex tensors of equal shape (..., F, T) with any leading axes. M is S conj(Y) / max(|Y|^2, eps), so
    M Y = S exactly wherever |Y|^2 >= eps; the product is complex, so it also corrects the phase.

    bound: "parts" replaces the real and the imaginary part x each by limit * tanh(steepness / 2 * x), published as
        K (1 - exp(-C x)) / (1 + exp(-C x)) with K = 10 and C = 0.1 (Williamson et al. 2016); "magnitude" compresses the
        magnitude so and keeps the phase (Choi et al. 2019, Deep Complex U-Net, with limit 1 and steepness 2); "none"
        does nothing.

    Used by the Channel-Attention Dense U-Net (Tolooshams et al. 2020) on each microphone.
    """

    bound: Bound = "parts"
    limit: float = 10.0
    steepness: float = 0.1
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if self.bound not in get_args(Bound):
            raise ValueError(f"bound is one of {', '.join(get_args(Bound))}, got {self.bound!r}")
        if not (self.limit > 0 and self.steepness > 0 and self.eps > 0):
            raise ValueError(
                f"limit, steepness and eps must be > 0, got limit={self.limit}, steepness={self.steepness}, "
                f"eps={self.eps}"
            )

    def target(self, mixture: Tensor, clean: Tensor) -> Tensor:
        """The bounded mask of a mixture and its clean spectrum: complex, of the same shape."""
        if mixture.shape != clean.shape or not (mixture.is_complex() and clean.is_complex()):
            raise ValueError(
                f"mixture and clean must be complex spectra of one shape, got {tuple(mixture.shape)} {mixture.dtype}, "
                f"{tuple(clean.shape)} {clean.dtype}"
            )
        power = mixture.real.square() + mixture.imag.square()
        return self.bounded(clean * mixture.conj() / power.clamp_min(self.eps))

    def bounded(self, mask: Tensor) -> Tensor:
        """Compresses a mask to the bound: complex, of the same shape."""
        if self.bound == "parts":
            return torch.complex(self._squeezed(mask.real), self._squeezed(mask.imag))
        if self.bound == "magnitude":
            return _with_magnitude(mask, self._squeezed)
        return mask

    def unbounded(self, mask: Tensor) -> Tensor:
        """The inverse of `bounded`. Values at the limit are first reduced to the largest number below it."""
        if self.bound == "parts":
            return torch.complex(self._stretched(mask.real), self._stretched(mask.imag))
        if self.bound == "magnitude":
            return _with_magnitude(mask, self._stretched)
        return mask

    def apply(self, mask: Tensor, mixture: Tensor) -> Tensor:
        """The enhanced spectrum: the unbounded mask times the mixture. Differentiable."""
        return self.unbounded(mask) * mixture

    def _squeezed(self, x: Tensor) -> Tensor:
        return self.limit * torch.tanh(self.steepness / 2 * x)

    def _stretched(self, x: Tensor) -> Tensor:
        most = 1 - torch.finfo(x.dtype).eps
        return 2 / self.steepness * torch.atanh((x / self.limit).clamp(-most, most))


def _with_magnitude(mask: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Applies `function` to the magnitude and keeps the phase; 0 stays 0 and has a gradient."""
    magnitude = mask.abs().clamp_min(1e-12)
    return mask * (function(magnitude) / magnitude)
