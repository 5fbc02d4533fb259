"""Evaluates predictions of hidden tokens by a masked language model, compared with counts of ids and of pairs, and
fills in the blanks of documents in any order.

A model trained with random numbers of hidden tokens (PMLM, Liao et al., 2020) can generate in any order: each blank is
drawn given the known tokens. A model trained with one ratio has not seen nearly empty documents.

Shapes: B documents of N tokens, V ids.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import (
    Compared,
    Evaluation,
    Score,
    TrainingLoss,
    read_batches,
    read_first,
    read_shuffled,
    trained_on,
)
from maskstream.train.evaluate.hidden_ids import STRENGTHS, NGrams, neighbours, score_ids
from maskstream.train.nn.token_layers import find_hidden_tokens
from maskstream.train.nn.token_model import TokenModel, TokenModelConfig

MEASURED = 512
"""Maximum number of documents or packed rows that are measured."""
COUNTED = 1 << 16
"""Maximum number of rows whose ids are counted."""
_AT_ONCE = 32
READING = (
    "A held-out text with the hidden tokens, and with the model's most probable tokens in their positions. The scores "
    "include the fraction of all hidden tokens that it predicts right."
)


@torch.inference_mode()
def measure_tokens(model: TokenModel, measured: Iterable[TextBatch], counts: NGrams) -> tuple[Score, Score]:
    """Measure predictions of hidden tokens, compared with counts.

    The baselines of the loss are the frequencies of ids, and pairs with the visible neighbours at the best of
    `STRENGTHS`.

    Args:
        model: The model.
        measured: Batches with masks.
        counts: Counts of a split that the model was trained on.

    Returns:
        The mean loss in nats, and the fraction predicted right.

    Raises:
        ValueError: `measured` is empty.
    """
    losses, right, found = [], [], []
    for batch in measured:
        hidden = find_hidden_tokens(batch)
        logits = model.compute_hidden_logits(batch, hidden)
        losses.append(F.cross_entropy(logits.float(), hidden.label, reduction="none"))
        right.append(logits.argmax(dim=-1) == hidden.label)
        found.append(neighbours(batch))
    if not losses:
        raise ValueError("losses need at least one batch, got none; use a split with at least one document")
    ids, left, after = (np.concatenate(column) for column in zip(*found, strict=True))
    beside = min(float(counts.beside(ids, left, after, strength).mean()) for strength in STRENGTHS)
    alone = float(counts.alone(ids).mean())
    return score_ids(
        "hidden tokens",
        len(ids),
        loss=float(torch.cat(losses).mean()),
        losses={"counts of pairs with the visible neighbours": beside, "counts of ids": alone},
        right=float(torch.cat(right).float().mean()),
    )


def evaluate(model: TokenModel, config: TextData, data: Manifest, shown: int) -> Evaluation:
    """Measure the loss on a held-out split with the recipe's masks, compared with counts of the training split.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of predictions to show.
    """
    size = min(len(data), _AT_ONCE)
    whole = replace(config, packing="pack", mask=None)
    counts = NGrams.of(read_batches(whole, trained_on(data), size=size, samples=COUNTED), model.config.vocabulary)
    loss, right = measure_tokens(model, read_shuffled(config, data, most=MEASURED, size=_AT_ONCE), counts)
    batch = read_first(config, data, shown)
    with torch.inference_mode():
        made = model.reconstructed(batch)
    rows = range(min(shown, len(batch)))
    return Evaluation(
        scores=(loss, right),
        notes={"perplexity": math.exp(loss.value)},
        examples=(Compared(title="Predictions", reading=READING, batch=batch, made=made, rows=rows),),
        loss=TrainingLoss(
            name="The mean cross-entropy of the hidden tokens in nats",
            baseline="counts of pairs of tokens",
            value=loss.baselines[loss.best],
        ),
        learns="A masked language model learns by predicting the tokens that it was not shown.",
    )


Order = Literal["random", "left_to_right", "confident"]
"""Which blank is filled in next: any; the first; or that whose most probable id is the most probable of all."""


@torch.inference_mode()
def generate(
    model: TokenModel,
    ids: Tensor,
    blank: int,
    *,
    order: Order = "random",
    temperature: float = 1.0,
    never: Sequence[int] = (),
    seed: int = 0,
) -> Tensor:
    """Fill in the blanks of documents, drawing one token of each document at a time.

    Tokens are drawn from the softmax of the logits / temperature; at temperature 0 the most probable one is chosen.

    Args:
        model: The model; it is put into eval mode.
        ids: Documents int (B, N).
        blank: Id of a blank, which is never drawn.
        order: Order of the blanks.
        temperature: Temperature of the softmax.
        never: Ids that are not drawn, such as special ones.
        seed: Seed of all random draws.

    Returns:
        Completed documents int64 (B, N).

    Raises:
        ValueError: The order is unknown, or the temperature is below 0.
    """
    if order not in get_args(Order):
        raise ValueError(f"order must be one of {', '.join(get_args(Order))}, got {order!r}")
    if temperature < 0:
        raise ValueError(f"temperature must be 0 or more, got {temperature}")
    model.eval()
    device = ids.device
    rng = torch.Generator(device).manual_seed(seed)
    made = ids.long().clone()
    documents, n = made.shape
    edges = torch.arange(documents + 1, device=device, dtype=torch.int32) * n
    places = torch.arange(n, device=device).repeat(documents)
    rows = torch.arange(documents, device=device)
    left = n - torch.arange(n, device=device)
    while (blanks := made == blank).any():
        x = model.encode_ids(made.flatten(), places, edges, n).view(documents, n, -1)
        if order == "confident":
            value = _compute_chances(model.logits(x), blank, never, 1.0).amax(dim=-1)
        elif order == "left_to_right":
            value = left.expand(documents, n).float()
        else:
            value = torch.rand((documents, n), generator=rng, device=device)
        chosen = value.masked_fill(~blanks, -1).argmax(dim=1)
        chances = _compute_chances(model.logits(x[rows, chosen]), blank, never, temperature)
        drawn = torch.multinomial(chances, 1, generator=rng)[:, 0]
        made[rows, chosen] = torch.where(blanks.any(dim=1), drawn, made[rows, chosen])
    return made


def _compute_chances(logits: Tensor, blank: int, never: Sequence[int], temperature: float) -> Tensor:
    """Return the probability of each id, float32 (..., V)."""
    logits = logits.float().clone()
    logits[..., [blank, *never]] = -torch.inf
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()
    return (logits / temperature).softmax(dim=-1)


EVALUATIONS = {TokenModelConfig: evaluate}
