"""Spikes: single elements of activations are dropped, at random but the same each time a sample is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...pipelines.masks.core.draw import Draw
from ...pipelines.masks.core.ratio import check_ratio
from ...shards.config import Config

_ODD = 0x5851_F42D_4C95_7F2D
_LOW_32 = 0xFFFF_FFFF


@dataclass(frozen=True, kw_only=True, slots=True)
class Spikes(Config):
    """Each element of a tensor is dropped with probability `ratio`, independently; what stays is not rescaled.

    This is no mask of a token grid: elements of activations (queries, keys, attention maps) are dropped inside the
    model, where the tensors lie. A loader gives each sample one number, `seeds`; from it, an element's place and the
    `site` (which tensor of the model) it is computed whether the element stays, on any device, in training and in
    inference: the same sample drops the same elements in any batch.

        dropped = queries * spikes.keep(seeds, queries.shape[1:], site=0)

    Source: Masked Spiking Transformer (Wang et al. 2023, random spike masking), at 0.75.
    """

    ratio: float = 0.75

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def seeds(self, draws: Sequence[Draw]) -> Tensor:
        """A seed for each view of a sample: int64 (B,)."""
        return torch.tensor([int(draw.rng.integers(1 << 62)) for draw in draws], dtype=torch.int64)

    def keep(self, seeds: Tensor, shape: Sequence[int], site: int = 0) -> Tensor:
        """Which elements stay: bool (B, *shape), on the device of `seeds`, int64 (B,)."""
        place = torch.arange(torch.Size(shape).numel(), dtype=torch.int64, device=seeds.device)
        start = _mixed(_mixed(seeds) + torch.tensor(site, device=seeds.device) * _ODD)
        bits = _mixed(start[:, None] + place * _ODD) & _LOW_32
        return (bits >= round(self.ratio * (1 << 32))).view(len(seeds), *shape)


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele et al. 2014) on int64, whose products wrap: every bit depends on all of `x`."""
    for shift, factor in ((30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB)):
        x = (x ^ _right(x, shift)) * (factor - (1 << 64))
    return x ^ _right(x, 31)


def _right(x: Tensor, bits: int) -> Tensor:
    """A shift to the right that fills with zeros."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
