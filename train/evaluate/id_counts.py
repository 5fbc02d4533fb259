"""Counts of ids and of neighbours: what ids are guessed by without a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class IdCounts:
    """Counts of a split's ids. single: float64 (K,), of each id, plus 1. pairs: float64 (K, K), of an id and one beside
    it, above it or below it, counted both ways.
    """

    single: Tensor
    pairs: Tensor

    @classmethod
    def of(cls, pictures: Iterable[Tensor], k: int) -> IdCounts:
        """The counts of the ids int64 (B, h, w) of batches of pictures."""
        single, pairs = torch.ones(k, dtype=torch.float64), torch.zeros(k * k, dtype=torch.float64)
        for ids in pictures:
            single += torch.bincount(ids.flatten(), minlength=k)
            for one, other in ((ids[:, 1:], ids[:, :-1]), (ids[:, :, 1:], ids[:, :, :-1])):
                pairs += torch.bincount((one * k + other).flatten(), minlength=k * k)
        both = pairs.view(k, k)
        return cls(single=single, pairs=both + both.T)

    def alone(self, ids: Tensor) -> Tensor:
        """-log of the frequency of ids, in nats."""
        return -(self.single / self.single.sum())[ids].log()

    def beside(self, ids: Tensor, near: Tensor, strength: float) -> Tensor:
        """-log of the frequency of ids beside the ids `near`, smoothed by `strength` ids of all kinds, in nats."""
        shares = self.single / self.single.sum()
        pairs, of = self.pairs[near, ids], self.pairs.sum(dim=1)[near]
        return -((pairs + strength * shares[ids]) / (of + strength)).log()
