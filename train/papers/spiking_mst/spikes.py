"""Random spike masking: drops single elements of activations, the same ones each time a sample is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maskstream.pipelines.masks.core.draw import Draw
from maskstream.pipelines.masks.core.ratio import check_ratio
from maskstream.shards.config import Config

_ODD = 0x5851_F42D_4C95_7F2D
_LOW_32 = 0xFFFF_FFFF


@dataclass(frozen=True, kw_only=True, slots=True)
class Spikes(Config):
    """Drops each element of a tensor independently with probability `ratio`; the others are not rescaled.

    This is not a mask of a token grid: elements of activations (queries, keys, attention maps) are dropped inside the
    model. Each sample has one seed. A hash of the seed, the element's index and the `site` (the number of the tensor in
    the model) decides whether the element is kept, on any device, in training and in inference: a sample drops the same
    elements in any batch.

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
        """Whether each element is kept: bool (B, *shape), on the device of `seeds` int64 (B,)."""
        place = torch.arange(torch.Size(shape).numel(), dtype=torch.int64, device=seeds.device)
        start = _mixed(_mixed(seeds) + torch.tensor(site, device=seeds.device) * _ODD)
        bits = _mixed(start[:, None] + place * _ODD) & _LOW_32
        return (bits >= round(self.ratio * (1 << 32))).view(len(seeds), *shape)


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele et al. 2014) on int64 with wrapping products: a hash of `x`."""
    for shift, factor in ((30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB)):
        x = (x ^ _right(x, shift)) * (factor - (1 << 64))
    return x ^ _right(x, 31)


def _right(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
