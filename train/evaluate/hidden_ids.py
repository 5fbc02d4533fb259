"""Predictions of hidden token ids: baselines from counts, and iterative decoding, which fills in the most certain ids
first.

Counts cover the frequencies of ids, and of neighbouring ids, in texts and images. Iterative decoding takes several
rounds. Its source is MaskGIT (Chang et al., 2022, section 3.2), with its cosine schedule; MAGE (Li et al., 2023)
generates images from fully hidden ids in this way.

Shapes: V ids, K hidden tokens. In iterative decoding: B samples of N ids, M of them hidden, K possible ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import cos, floor, pi

import numpy as np
import torch
from torch import Tensor

from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.shards.arrays import Float32s, Float64s, Int64s
from maskstream.train.nn.token_layers import find_hidden_tokens

from .evaluation import Score

STRENGTHS = (10.0, 100.0, 1000.0)
"""Weights of the id frequencies, in tokens, for smoothing the frequencies of pairs."""
_AT_ONCE = 1024


def score_ids(
    of: str,
    count: int,
    *,
    loss: float,
    losses: Mapping[str, float],
    right: float,
    shares: Mapping[str, float] | None = None,
) -> tuple[Score, Score]:
    """Return the scores of predicted hidden ids: the cross-entropy in nats, and the fraction predicted right.

    Args:
        of: Kind of the ids.
        count: Number of ids.
        loss: Cross-entropy of the model.
        losses: Cross-entropies of baselines by name.
        right: Fraction that the model predicts right.
        shares: Fractions of baselines by name.
    """
    return (
        Score(name="cross-entropy", value=loss, unit="nats", of=of, count=count, baselines=losses),
        Score.share("predicted right", right, of, count, shares),
    )


@dataclass(frozen=True, slots=True)
class NGrams:
    """Counts of a split's true ids.

    Attributes:
        single: Count of each id, plus 1: float32 (V,).
        pairs: How often each id is followed by each other id in a document: float32 (V, V).
    """

    single: Float32s
    pairs: Float32s

    @classmethod
    def of(cls, batches: Iterable[TextBatch], vocabulary: int) -> NGrams:
        """Count the ids of a split that the model was trained on; special tokens count as ids too.

        Args:
            batches: Batches of texts.
            vocabulary: Number of ids.
        """
        single = np.ones(vocabulary, np.float32)
        pairs = np.zeros((vocabulary, vocabulary), np.float32)
        for batch in batches:
            ids = batch.unpadded.tokens.numpy().astype(np.int64)
            follows = batch.unpadded.positions.numpy()[1:] > 0
            single += np.bincount(ids, minlength=vocabulary)
            np.add.at(pairs, (ids[:-1][follows], ids[1:][follows]), 1)
        return cls(single, pairs)

    @property
    def frequencies(self) -> Float64s:
        """The frequency of each id among all tokens, float64 (V,)."""
        shares: Float64s = self.single / self.single.sum(dtype=np.float64)
        return shares

    def alone(self, ids: Int64s) -> Float64s:
        """Return the loss of hidden tokens, -log of the frequency of their ids in nats: float64 (K,)."""
        return -np.log(self.frequencies[ids])

    def beside(self, ids: Int64s, left: Int64s, right: Int64s, strength: float) -> Float64s:
        """Return the loss of hidden tokens, predicted from their visible neighbours, in nats.

        The probability of an id t is proportional to p(t | left) p(right | t), each smoothed by the frequencies of ids.

        Args:
            ids: True ids (K,).
            left: Visible ids to the left (K,); -1 for none.
            right: Visible ids to the right (K,); -1 for none.
            strength: Weight of the frequencies, in tokens.
        """
        shares = self.frequencies
        after, before = self.pairs.sum(1), shares * strength
        losses = np.empty(len(ids))
        for start in range(0, len(ids), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            logits = np.tile(np.log(shares), (len(ids[part]), 1))
            rows, known = np.flatnonzero(left[part] >= 0), left[part][left[part] >= 0]
            logits[rows] = np.log((self.pairs[known] + before) / (after[known, None] + strength))
            rows, known = np.flatnonzero(right[part] >= 0), right[part][right[part] >= 0]
            logits[rows] += np.log((self.pairs[:, known].T + before[known, None]) / (after + strength))
            logits -= logits.max(1, keepdims=True)
            chosen = logits[np.arange(len(logits)), ids[part]]
            losses[part] = np.log(np.exp(logits).sum(1)) - chosen
        return losses


def neighbours(batch: TextBatch) -> tuple[Int64s, Int64s, Int64s]:
    """Return the true ids of a batch's hidden tokens, and the visible ids to their left and right (-1 for none): int64
    (K,).
    """
    hidden = find_hidden_tokens(batch)
    unpadded = batch.unpadded
    ids = unpadded.tokens.numpy().astype(np.int64)
    masked = np.zeros(len(ids), np.bool_)
    masked[hidden.place.numpy()] = True
    seen = np.where(masked, -1, ids)
    starts = unpadded.positions.numpy() == 0
    left = np.where(starts, -1, np.roll(seen, 1))
    right = np.where(np.roll(starts, -1), -1, np.roll(seen, -1))
    place = hidden.place.numpy()
    return ids[place], left[place], right[place]


@dataclass(frozen=True, kw_only=True, slots=True)
class IdCounts:
    """Counts of the ids of a split's images.

    Attributes:
        single: Count of each id, plus 1: float64 (K,).
        pairs: Count of each pair of neighbours, horizontal or vertical, in both orders: float64 (K, K).
    """

    single: Tensor
    pairs: Tensor

    @classmethod
    def of(cls, pictures: Iterable[Tensor], k: int) -> IdCounts:
        """Count the ids int64 (B, h, w) of batches of images, of `k` possible ids.

        Args:
            pictures: Batches of ids.
            k: Number of possible ids.
        """
        single, pairs = torch.ones(k, dtype=torch.float64), torch.zeros(k * k, dtype=torch.float64)
        for ids in pictures:
            single += torch.bincount(ids.flatten(), minlength=k)
            for one, other in ((ids[:, 1:], ids[:, :-1]), (ids[:, :, 1:], ids[:, :, :-1])):
                pairs += torch.bincount((one * k + other).flatten(), minlength=k * k)
        both = pairs.view(k, k)
        return cls(single=single, pairs=both + both.T)

    def alone(self, ids: Tensor) -> Tensor:
        """Return -log of the frequency of ids, in nats."""
        return -(self.single / self.single.sum())[ids].log()

    def beside(self, ids: Tensor, near: Tensor, strength: float) -> Tensor:
        """Return -log of the frequency of ids next to known ids, in nats.

        Args:
            ids: True ids.
            near: Known neighbours, of the same shape.
            strength: Weight of the frequencies of ids, in ids, for smoothing.
        """
        shares = self.single / self.single.sum()
        pairs, of = self.pairs[near, ids], self.pairs.sum(dim=1)[near]
        return -((pairs + strength * shares[ids]) / (of + strength)).log()


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenIdLosses:
    """Mean losses of hidden ids in nats, and fractions predicted right.

    Attributes:
        model: Loss of the model.
        right: Fraction that the model predicts right.
        alone: Loss by the frequencies of ids.
        common: Fraction of the most frequent id.
        beside: Loss by the frequencies next to a known id, at the best of `STRENGTHS`.
        copied: Fraction that equals the known id.
        ids: Number of hidden ids.
    """

    model: float
    right: float
    alone: float
    common: float
    beside: float
    copied: float
    ids: int

    @classmethod
    def of(cls, rows: Iterable[tuple[Tensor, Tensor, Tensor, Tensor]], counts: IdCounts) -> HiddenIdLosses:
        """Compute the losses from batches of hidden ids.

        Args:
            rows: Losses, whether ids are predicted right, true ids, and known neighbours, each of one shape.
            counts: Counts of a split that the model was trained on.

        Raises:
            ValueError: `rows` is empty.
        """
        columns = [[one.flatten() for one in row] for row in rows]
        if not columns:
            raise ValueError("losses need at least one batch, got none; use a split with at least one sample")
        losses, hit, true, near = (torch.cat(parts) for parts in zip(*columns, strict=True))
        return cls(
            model=float(losses.mean()),
            right=float(hit.double().mean()),
            alone=float(counts.alone(true).mean()),
            common=float((true == counts.single.argmax()).double().mean()),
            beside=min(float(counts.beside(true, near, strength).mean()) for strength in STRENGTHS),
            copied=float((true == near).double().mean()),
            ids=len(true),
        )

    def scores(self, beside: str, copied: str, common: str = "") -> tuple[Score, Score]:
        """Return the cross-entropy and the fraction predicted right, with baselines.

        Args:
            beside: Name of the baseline of frequencies next to a known id.
            copied: Name of the baseline that copies the known id.
            common: Name of the baseline of the most frequent id; "" leaves it out.
        """
        return score_ids(
            "hidden ids",
            self.ids,
            loss=self.model,
            losses={beside: self.beside, "counts of ids": self.alone},
            right=self.right,
            shares={copied: self.copied, **({common: self.common} if common else {})},
        )


Predict = Callable[[Tensor, Tensor, int], Tensor]
"""Returns logits (B, M, K) of the hidden ids, in order, for ids int64 (B, N), the hidden ones bool (B, N), and M.
Values of `ids` at hidden positions have no meaning.
"""


@torch.inference_mode()
def fill_in(
    predict: Predict, ids: Tensor, hidden: Tensor, *, rounds: int = 12, temperature: float = 4.5, seed: int = 0
) -> Tensor:
    """Draw the hidden ids by iterative decoding, with the same number of hidden ids in each row.

    In each round, all hidden ids are drawn from the softmax of their logits, and the most certain ones are fixed: after
    round r of R, the cosine of r / R determines how many remain hidden, at least one fewer than before. Certainty is
    the log probability plus Gumbel noise times `temperature` times (1 - r / R).

    Args:
        predict: The model.
        ids: Ids int64 (B, N).
        hidden: True for hidden ids, bool (B, N).
        rounds: Number of rounds.
        temperature: Factor of the noise.
        seed: Seed of all random draws.

    Returns:
        Completed ids int64 (B, N).

    Raises:
        ValueError: Rows have different numbers of hidden ids, or a setting is out of range.
    """
    counts = hidden.sum(dim=1)
    first = m = int(counts.max()) if len(counts) else 0
    if rounds < 1 or temperature < 0 or (len(counts) and int(counts.min()) != first):
        raise ValueError(
            "rounds must be at least 1, temperature 0 or more, and all rows must have the same number of hidden ids, "
            f"got {rounds}, {temperature} and counts from {int(counts.min()) if len(counts) else 0} to {first}"
        )
    rng = torch.Generator(ids.device).manual_seed(seed)
    made, hidden = ids.long().clone(), hidden.clone()
    for number in range(1, rounds + 1):
        if not m:
            break
        logs = predict(made, hidden, m).float().log_softmax(dim=2)
        drawn = torch.multinomial(logs.exp().flatten(0, 1), 1, generator=rng).view(-1, m)
        done = number / rounds
        noise = -torch.empty_like(logs[:, :, 0]).exponential_(generator=rng).log()
        sure = logs.gather(2, drawn[:, :, None])[:, :, 0] + temperature * (1 - done) * noise
        left = 0 if number == rounds else min(max(floor(first * cos(pi / 2 * done)), 1), m - 1)
        places = hidden.to(torch.uint8).argsort(dim=1, stable=True)[:, -m:]
        kept = sure.topk(m - left, dim=1).indices
        chosen = places.gather(1, kept)
        made.scatter_(1, chosen, drawn.gather(1, kept))
        hidden.scatter_(1, chosen, False)
        m = left
    return made
