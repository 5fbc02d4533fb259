"""Evaluates how well a model predicts hidden ids of pictures, compared with counts of ids and of neighbours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipelines.augment import CenterCrop
from ...pipelines.modalities.image.batch import ImageBatch
from ...pipelines.modalities.image.data import ImageData
from ...shards.format.manifest import Manifest
from ..models.generative_encoder import GenerativeEncoder, mask_of
from .held_out import HeldOut, Score, batches, margin, trained_on
from .ngrams import STRENGTHS
from .patches import nearest_visible

COUNTED = 2048
"""The largest number of pictures whose ids are counted."""
_AT_ONCE = 32


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


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenIdLosses:
    """The mean losses of `ids` hidden ids in nats, and shares that are predicted right. model, right: the model's.
    alone, common: of the frequencies of ids, and of the most frequent one. beside, copied: of the frequencies beside
    the nearest visible id, at the best of `STRENGTHS`, and of a copy of that id.
    """

    model: float
    right: float
    alone: float
    common: float
    beside: float
    copied: float
    ids: int

    def held_out(self, config: ImageData) -> HeldOut:
        """The losses as results."""
        guesses = {"counts beside the nearest visible id": self.beside, "counts of ids": self.alone}
        return HeldOut(
            facts={
                f"loss on {self.ids} hidden ids": f"{self.model:.3f} nats, "
                + margin(self.model, min(guesses.values()), "the better of the next two"),
                **{f"loss by {name}": f"{value:.3f} nats" for name, value in guesses.items()},
                "predicted right": f"{self.right:.1%}",
                "a copy of the nearest visible id is right": f"{self.copied:.1%}",
                "the most frequent id is right": f"{self.common:.1%}",
                "mask": repr(config.mask),
            },
            learns="The encoder learns by predicting the ids of cells that it was not shown.",
            loss="The mean cross-entropy of the hidden ids in nats, with smoothed labels",
            baseline="counts of ids",
            baseline_loss=self.alone,
            score=Score(name="cross-entropy of hidden ids in nats", value=self.model, baselines=guesses),
        )


@torch.inference_mode()
def hidden_id_losses(model: GenerativeEncoder, measured: Iterable[ImageBatch], counts: IdCounts) -> HiddenIdLosses:
    """The losses on batches with masks. counts: of a split that the model was trained on. ValueError for no batch."""
    columns: list[tuple[Tensor, ...]] = []
    for batch in measured:
        ids, mask = model.ids(batch), mask_of(batch)
        encoded = model.encode(ids, mask.visible, mask.mask_token)
        logits = model.predicted(encoded, mask)
        true = ids.gather(1, mask.target)
        near = ids.gather(1, nearest_visible(mask))
        losses = F.cross_entropy(logits.float().transpose(1, 2), true, reduction="none")
        columns.append(tuple(one.flatten() for one in (losses, logits.argmax(dim=2) == true, true, near)))
    if not columns:
        raise ValueError("losses need at least one batch, got none; take a split with a picture in it")
    losses, hit, true, near = (torch.cat(parts) for parts in zip(*columns, strict=True))
    return HiddenIdLosses(
        model=float(losses.mean()),
        right=float(hit.double().mean()),
        alone=float(counts.alone(true).mean()),
        common=float((true == counts.single.argmax()).double().mean()),
        beside=min(float(counts.beside(true, near, strength).mean()) for strength in STRENGTHS),
        copied=float((true == near).double().mean()),
        ids=len(true),
    )


def training_pictures(config: ImageData, data: str | Path) -> list[ImageBatch]:
    """Up to `COUNTED` pictures of the split `trained_on`, without masks, random crops and colours."""
    trained = trained_on(data)
    n = min(len(Manifest.load(trained)), COUNTED)
    size = min(n, _AT_ONCE)
    plain = replace(config, views=1, augment=CenterCrop(), colour=None, mask=None)
    return list(batches(plain, trained, size=size, samples=n // size * size, shuffle=True))
