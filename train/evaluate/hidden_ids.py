"""Hidden ids: what they are by counts alone, and iterative decoding, which fills them in, the most certain first.

Counts say how often ids occur, and which ids stand beside which, in texts and in pictures. Iterative decoding takes
several rounds. Its source is MaskGIT (Chang et al., 2022, section 3.2), whose schedule is the cosine here; MAGE (Li et
al., 2023) draws pictures from nothing in this way.

Shapes: V ids, K hidden tokens. In iterative decoding: B samples of N ids, M of them hidden, K ids that can be drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import cos, floor, pi

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.train.nn.token_layers import find_hidden_tokens

from .evaluation import Score

STRENGTHS = (10.0, 100.0, 1000.0)
"""The weights of the frequencies of ids, in tokens, when they smooth those of pairs."""
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
    """How well a model predicts `count` hidden ids: the cross-entropy in nats, and the share that it predicts right.

    of: what the ids are. losses, shares: the same figures of baselines, by name.
    """
    return (
        Score(name="cross-entropy", value=loss, unit="nats", of=of, count=count, baselines=losses),
        Score.share("predicted right", right, of, count, shares),
    )


@dataclass(frozen=True, slots=True)
class NGrams:
    """Counts of a split's true ids. single: float32 (V,), of each id, plus 1. pairs: float32 (V, V), of an id and the
    next one in its document.
    """

    single: npt.NDArray[np.float32]
    pairs: npt.NDArray[np.float32]

    @classmethod
    def of(cls, batches: Iterable[TextBatch], vocabulary: int) -> NGrams:
        """The counts of batches of a split that the model was trained on; special tokens count as ids too."""
        single = np.ones(vocabulary, np.float32)
        pairs = np.zeros((vocabulary, vocabulary), np.float32)
        for batch in batches:
            ids = batch.unpadded.tokens.numpy().astype(np.int64)
            follows = batch.unpadded.positions.numpy()[1:] > 0
            single += np.bincount(ids, minlength=vocabulary)
            np.add.at(pairs, (ids[:-1][follows], ids[1:][follows]), 1)
        return cls(single, pairs)

    @property
    def frequencies(self) -> npt.NDArray[np.float64]:
        """The share of each id in all tokens, float64 (V,)."""
        shares: npt.NDArray[np.float64] = self.single / self.single.sum(dtype=np.float64)
        return shares

    def alone(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The loss of hidden tokens, -log of the frequency of their ids in nats: float64 (K,)."""
        return -np.log(self.frequencies[ids])

    def beside(
        self, ids: npt.NDArray[np.int64], left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], strength: float
    ) -> npt.NDArray[np.float64]:
        """The loss of hidden tokens between the visible ids `left` and `right` (K,), -1 where there is none, in nats.

        The probability of an id t is proportional to p(t | left) p(right | t), each smoothed by `strength` tokens of
        the frequencies of ids.
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


def neighbours(batch: TextBatch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The true ids of a batch's hidden tokens, and the visible ids to their left and right, -1 for none: int64 (K,)."""
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
    alone, common: of the frequencies of ids, and of the most frequent one. beside, copied: of the frequencies beside a
    known id, at the best of `STRENGTHS`, and of a copy of that id.
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
        """Those of batches of hidden ids: losses, whether they are predicted right, true ids, and known ids, each of
        one shape. counts: of a split that the model was trained on. ValueError for no batch.
        """
        columns = [[one.flatten() for one in row] for row in rows]
        if not columns:
            raise ValueError("losses need at least one batch, got none; take a split with a sample in it")
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
        """The losses, and the shares that are right. All three are names of baselines; without one it is left out."""
        return score_ids(
            "hidden ids",
            self.ids,
            loss=self.model,
            losses={beside: self.beside, "counts of ids": self.alone},
            right=self.right,
            shares={copied: self.copied, **({common: self.common} if common else {})},
        )


Predict = Callable[[Tensor, Tensor, int], Tensor]
"""The logits (B, M, K) of hidden ids in their order, of ids int64 (B, N), which of them are hidden bool (B, N), and M.
What stands in `ids` where they are hidden has no meaning."""


@torch.inference_mode()
def fill_in(
    predict: Predict, ids: Tensor, hidden: Tensor, *, rounds: int = 12, temperature: float = 4.5, seed: int = 0
) -> Tensor:
    """The ids int64 (B, N) with the `hidden` ones bool (B, N) drawn, equally many in each row.

    In each round all hidden ids are drawn from the softmax of their logits, and the most certain ones stay: after round
    r of R as many are left as a cosine of r / R says, at least one fewer. Certainty is the log of the probability plus
    Gumbel noise times `temperature` times (1 - r / R). seed: decides all. ValueError for rows with different counts.
    """
    counts = hidden.sum(dim=1)
    first = m = int(counts.max()) if len(counts) else 0
    if rounds < 1 or temperature < 0 or (len(counts) and int(counts.min()) != first):
        raise ValueError(
            "rounds must be at least 1, temperature 0 or more, and rows have equally many hidden ids, got "
            f"{rounds}, {temperature} and counts from {int(counts.min()) if len(counts) else 0} to {first}"
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
