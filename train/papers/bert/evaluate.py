"""Evaluates how well a masked language model predicts hidden tokens, compared with counts of ids and of pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ....pipelines.modalities.text.batch import TextBatch
from ....pipelines.modalities.text.data import TextData
from ....shards.format.manifest import Manifest
from ...evaluate.held_out import HeldOut, Score, batches, margin, trained_on
from ...evaluate.ngrams import STRENGTHS, NGrams, neighbours
from ...nn.token_ids import hidden_tokens
from ...nn.token_model import TokenModel

MEASURED = 512
"""The largest number of documents or packed rows that are measured."""
COUNTED = 1 << 16
"""The largest number of rows whose ids are counted."""
_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedTokenLosses:
    """The mean losses of `tokens` hidden tokens in nats, and the share that the model predicts right.

    model: the model's. alone: of the frequencies of ids. beside: of the visible neighbours' pairs (see `NGrams`), at
    the best of `STRENGTHS`.
    """

    model: float
    accuracy: float
    alone: float
    beside: float
    tokens: int

    def facts(self) -> dict[str, str]:
        """The figures by name."""
        trivial = min(self.alone, self.beside)
        below = margin(self.model, trivial, "counts of pairs")
        return {
            f"loss on {self.tokens} hidden tokens": f"{self.model:.3f}, {below}",
            "perplexity": f"{math.exp(self.model):.1f}",
            "predicted right": f"{self.accuracy:.1%}",
            "loss by counts of pairs with the visible neighbours": f"{self.beside:.3f}",
            "loss by counts of ids": f"{self.alone:.3f}",
        }


@torch.inference_mode()
def masked_token_losses(model: TokenModel, measured: Iterable[TextBatch], counts: NGrams) -> MaskedTokenLosses:
    """The losses on batches with masks. counts: of a split that the model was trained on. ValueError for no batch."""
    losses, right, found = [], [], []
    for batch in measured:
        hidden = hidden_tokens(batch)
        logits = model.logits(model.encode(batch, hidden.place))
        losses.append(F.cross_entropy(logits.float(), hidden.label, reduction="none"))
        right.append(logits.argmax(dim=-1) == hidden.label)
        found.append(neighbours(batch))
    if not losses:
        raise ValueError("losses need at least one batch, got none; take a split with a document in it")
    ids, left, after = (np.concatenate(column) for column in zip(*found, strict=True))
    return MaskedTokenLosses(
        model=float(torch.cat(losses).mean()),
        accuracy=float(torch.cat(right).float().mean()),
        alone=float(counts.alone(ids).mean()),
        beside=min(float(counts.beside(ids, left, after, strength).mean()) for strength in STRENGTHS),
        tokens=len(ids),
    )


def held_out(config: TextData, model: TokenModel, data: str | Path, train: str | Path | None = None) -> HeldOut:
    """The loss on a held-out split with the recipe's masks, compared with those of counts.

    train: the split that the model was trained on, all of whose ids are counted; see `trained_on` for the default.
    """
    n = min(len(Manifest.load(data)), MEASURED)
    size = min(n, _AT_ONCE)
    whole = replace(config, packing="pack", mask=None)
    counts = NGrams.of(batches(whole, train or trained_on(data), size=size, samples=COUNTED), model.config.vocabulary)
    measured = batches(config, data, size=size, samples=n // size * size, shuffle=True)
    found = masked_token_losses(model, measured, counts)
    return HeldOut(
        facts={"documents": f"up to {config.length} tokens", **found.facts(), "mask": repr(config.mask)},
        learns="A masked language model learns by predicting the tokens that it was not shown.",
        loss="The mean cross-entropy of the hidden tokens in nats",
        baseline="counts of pairs of tokens",
        baseline_loss=min(found.alone, found.beside),
        score=Score(
            name="cross-entropy of hidden tokens in nats",
            value=found.model,
            baselines={"counts of pairs with the visible neighbours": found.beside, "counts of ids": found.alone},
        ),
    )
