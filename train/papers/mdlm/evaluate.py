"""Evaluates a masked diffusion language model by its bound of the likelihood of held-out texts, and draws texts by it.

The bound is an integral over time, estimated by draws: each text is hidden at `DRAWS` ratios that are spread evenly,
with exact counts, so that neither the ratio nor the count adds noise. It holds for any masked language model: a model
trained with every number of hidden tokens (PMLM) has the bound of drawing them one by one in a random order, which is
the same number. So models of both kinds, and count models that predict from left to right, can be compared.

Shapes: B texts of N tokens, K tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskstream.pipelines.masks import MaskedDiffusion, Padded, Replace, Stratified
from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.shards.arrays import Float64s, Int64s
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
from maskstream.train.nn.token_layers import find_hidden_tokens
from maskstream.train.nn.token_model import TokenModel

from .model import DiffusionLanguageConfig, mask_impossible, need_ratio

MEASURED = 256
"""Maximum number of texts that are measured."""
DRAWS = 16
"""Number of masks drawn for each of them."""
COUNTED = 1 << 16
"""The largest number of rows whose ids are counted."""
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""Number of tokens after a shorter context that have the same weight as those seen after a longer one."""
_AT_ONCE = 32
READING = (
    "A held-out text with the tokens that the model had to predict, and with the most probable tokens in their "
    "positions. The number of hidden tokens differs from text to text."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """A bound on the negative log-likelihood.

    Attributes:
        value: The bound, in nats per token.
        error: Standard error over the draws of ratios; 0 for one draw.
        tokens: Number of tokens, without special ones.
        draws: Number of masks drawn for each text.
    """

    value: float
    error: float
    tokens: int
    draws: int


@torch.inference_mode()
def measure_bound(model: TokenModel, batches: Iterable[TextBatch], draws: int) -> Bound:
    """Measure the bound of a model on batches whose mask has ratios.

    Args:
        model: The model, in eval mode.
        batches: Batches with `draws` views of each text.
        draws: Number of views.

    Raises:
        ValueError: The batches have no token, or another mask.
    """
    total, tokens = torch.zeros(draws, dtype=torch.float64), torch.zeros(draws, dtype=torch.float64)
    for batch in batches:
        hidden, view = find_hidden_tokens(batch), torch.arange(len(batch)) % draws
        row = hidden.index // batch.tokens.shape[1]
        logits = mask_impossible(model.compute_hidden_logits(batch, hidden), batch, hidden)
        errors = F.cross_entropy(logits.float(), hidden.label, reduction="none") / need_ratio(batch)[row]
        total.index_add_(0, view[row], errors.double())
        tokens.index_add_(0, view, (batch.words >= 0).sum(dim=1).double())
    if not tokens.sum():
        raise ValueError("a bound needs at least one token, got none; use a split with at least one document")
    each = total / tokens
    error = float(each.std() / math.sqrt(draws)) if draws > 1 else 0.0
    return Bound(value=float(total.sum() / tokens.sum()), error=error, tokens=int(tokens[0]), draws=draws)


def bounded(config: TextData, draws: int = DRAWS) -> TextData:
    """Return the data config whose batches result in a bound: `draws` views of each text, at evenly spread ratios.

    Args:
        config: Data config of the run.
        draws: Number of views.
    """
    mask = MaskedDiffusion(ratio=Stratified(strata=draws), exact=True)
    return replace(config, views=draws, mask=Padded(mask=Replace(mask=mask, keep=0.0, random=0.0)))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Counts:
    """How often contexts, as numbers, are followed by ids; `keys` are context * vocabulary + id, ascending int64."""

    keys: Int64s
    found: Int64s
    contexts: Int64s
    totals: Int64s

    @classmethod
    def of(cls, context: Int64s, ids: Int64s, vocabulary: int) -> _Counts:
        keys, found = np.unique(context * vocabulary + ids, return_counts=True)
        contexts, totals = np.unique(context, return_counts=True)
        return cls(keys=keys, found=found, contexts=contexts, totals=totals)

    def smoothed(self, context: Int64s, ids: Int64s, vocabulary: int, shorter: Float64s, strength: float) -> Float64s:
        """Return the probability of ids (K,) after contexts (K,), smoothed by `strength` tokens of a shorter
        context's.
        """
        seen = _look_up_keys(self.keys, self.found, context * vocabulary + ids)
        return (seen + strength * shorter) / (_look_up_keys(self.contexts, self.totals, context) + strength)


def _look_up_keys(keys: Int64s, values: Int64s, asked: Int64s) -> Int64s:
    """Return the values of the asked keys, 0 for missing ones."""
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)


def measure_ngrams(counted: Iterable[TextBatch], measured: Iterable[TextBatch], vocabulary: int) -> dict[str, float]:
    """Measure the negative log-likelihood in nats per token for models that count ids, pairs and triples.

    Pairs and triples predict each token from the one or two before it, at the best of `STRENGTHS` for the measured
    texts. Like the bound, they assume a known length: special tokens are read, but never predicted.

    Args:
        counted: Batches of the training split.
        measured: Batches to measure.
        vocabulary: Number of possible ids.
    """
    last, one, two = map(np.concatenate, zip(*map(_read_contexts, counted), strict=True))
    ids, before, both = map(np.concatenate, zip(*map(_read_contexts, measured), strict=True))
    single = np.bincount(last, minlength=vocabulary) + 1.0
    alone = (single / single.sum())[ids]
    pairs = _Counts.of(one, last, vocabulary)
    triples = _Counts.of(one + vocabulary * two, last, vocabulary)
    losses: dict[str, list[float]] = {"counts of pairs": [], "counts of triples": []}
    for near, far in product(STRENGTHS, STRENGTHS):
        after_one = pairs.smoothed(before, ids, vocabulary, alone, near)
        after_two = triples.smoothed(before + vocabulary * both, ids, vocabulary, after_one, far)
        losses["counts of pairs"].append(float(-np.log(after_one).mean()))
        losses["counts of triples"].append(float(-np.log(after_two).mean()))
    best = {f"{name}, left to right": min(values) for name, values in losses.items()}
    return {**best, "counts of ids": float(-np.log(alone).mean())}


def _read_contexts(batch: TextBatch) -> tuple[Int64s, Int64s, Int64s]:
    """Return the ids of all tokens except special ones, the ids before them, and the ids before those: each int64 (K,).

    The second token of a text has only one token before it, which is used twice.
    """
    ids = batch.unpadded.tokens.numpy().astype(np.int64)
    place = batch.unpadded.positions.numpy()
    at = np.flatnonzero(batch.unpadded.gathered(batch.words).numpy() >= 0)
    at = at[place[at] > 0]
    return ids[at], ids[at - 1], ids[at - np.minimum(place[at], 2)]


def evaluate(model: TokenModel, config: TextData, data: Manifest, shown: int) -> Evaluation:
    """Measure the bound on a held-out split, compared with likelihoods from counts of the training split.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    size = min(len(data), _AT_ONCE)
    bound = measure_bound(model, read_shuffled(bounded(config), data, most=MEASURED, size=_AT_ONCE), DRAWS)
    counts = measure_ngrams(
        read_batches(replace(config, packing="pack", mask=None), trained_on(data), size=size, samples=COUNTED),
        read_shuffled(replace(config, mask=None), data, most=MEASURED, size=_AT_ONCE),
        model.config.vocabulary,
    )
    batch = read_first(config, data, shown)
    with torch.inference_mode():
        made = model.reconstructed(batch)
    rows = range(min(shown, len(batch)))
    score = Score(
        name="bound of the negative log-likelihood",
        value=bound.value,
        unit="nats",
        of="tokens",
        count=bound.tokens,
        baselines=counts,
    )
    notes = {"perplexity": math.exp(bound.value), "draws of each text": bound.draws, "standard error": bound.error}
    return Evaluation(
        scores=(score,),
        notes=notes,
        examples=(Compared(title="Predictions", reading=READING, batch=batch, made=made, rows=rows),),
        loss=TrainingLoss(
            name="The bound on the negative log-likelihood in nats per token",
            baseline="counts of the two tokens before",
            value=min(counts.values()),
        ),
        learns=(
            "A masked diffusion model learns by predicting the tokens that it was not shown, at any ratio from "
            "none to all. So it can generate text from scratch, and its loss is a bound on the likelihood of "
            "texts."
        ),
    )


@torch.inference_mode()
def generate(
    model: TokenModel,
    ids: Tensor,
    blank: int,
    *,
    steps: int = 64,
    temperature: float = 1.0,
    never: Sequence[int] = (),
    seed: int = 0,
) -> Tensor:
    """Fill in the blanks of texts by the ancestral sampler.

    The time goes from 1 to 0 in equal steps. In a step from t to s each blank is filled with probability (t - s) / t,
    independently of the others, from the softmax of its logits / temperature; at temperature 0 with the most probable
    id. Filled tokens are not changed again.

    Args:
        model: The model; it is put into eval mode.
        ids: Texts int (B, N).
        blank: Id of a blank, which is never drawn.
        steps: Number of steps.
        temperature: Temperature of the softmax.
        never: Ids that are not drawn, such as special ones.
        seed: Seed of all random draws.

    Returns:
        Completed texts int64 (B, N).

    Raises:
        ValueError: `steps` is below 1, or the temperature below 0.
    """
    if steps < 1 or temperature < 0:
        raise ValueError(f"steps must be at least 1 and temperature 0 or more, got {steps} and {temperature}")
    model.eval()
    device = ids.device
    rng = torch.Generator(device).manual_seed(seed)
    made = ids.long().clone()
    documents, n = made.shape
    edges = torch.arange(documents + 1, device=device, dtype=torch.int32) * n
    places = torch.arange(n, device=device).repeat(documents)
    for left in range(steps, 0, -1):
        blanks = made == blank
        filled = blanks & (torch.rand((documents, n), generator=rng, device=device) < 1 / left)
        if not filled.any():
            continue  # the model reads the same input as in the previous step
        x = model.encode_ids(made.flatten(), places, edges, n, torch.nonzero(filled.flatten())[:, 0])
        logits = model.logits(x).float()
        logits[:, [blank, *never]] = -torch.inf
        if temperature == 0:
            made[filled] = logits.argmax(dim=-1)
        else:
            chances = (logits / temperature).softmax(dim=-1)
            made[filled] = torch.multinomial(chances, 1, generator=rng)[:, 0]
    return made


EVALUATIONS = {DiffusionLanguageConfig: evaluate}
