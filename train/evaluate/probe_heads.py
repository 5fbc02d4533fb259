"""What a probe fits on the outputs of a frozen encoder: neighbours, a linear layer, or a query that attends to tokens.

Neighbours by cosine vote for a class, weighted by exp(cosine / 0.07) (k-NN: Wu et al., Unsupervised Feature Learning
via Non-Parametric Instance Discrimination, 2018, section 3.4).

The linear probe is logistic regression with an L2 penalty that is chosen by cross-validation on the training samples.
A fold holds neighbours: samples are in the order of their keys, and those of one source, which are often alike, follow
one another. If like samples were trained on and held out, weak penalties would look too good. The problem is convex and
solved by L-BFGS from zero in float64, so the result does not depend on a seed.

The attentive probe is a learned query that attends to the tokens, and a linear layer that reads the result (V-JEPA:
Bardes et al., Revisiting Feature Prediction for Learning Visual Representations from Video, 2024, section 4.1, without
its MLP).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.train.core.process import seeded
from maskstream.train.nn.transformer import init_linear

from .evaluation import score

TEMPERATURE = 0.07
_AT_ONCE = 1024
PENALTIES = (1e1, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""The penalties that are tried, strongest first; of equally good ones the first is taken."""
FOLDS = 5
ENOUGH = 1000
"""No further fold is held out once this many samples were."""
_ITERATIONS = 100
STEPS, ROWS = 300, 64
"""Steps of AdamW, and samples in each."""
LR, WEIGHT_DECAY = 3e-3, 1e-2


def knn_scores(train: Tensor, has: Tensor, test: Tensor, k: int) -> Tensor:
    """The votes for each class, float32 (m, C), 0 to 1.

    train: vectors (n, D); has: the classes that each has, float32 (n, C); test: vectors (m, D). With fewer than k
    vectors in train, all vote.
    """
    train, k = F.normalize(train.float(), dim=1), min(k, len(train))
    votes = []
    for rows in torch.split(test, _AT_ONCE):
        near, index = (F.normalize(rows.float(), dim=1) @ train.T).topk(k, dim=1)
        weight = ((near - near[:, :1]) / TEMPERATURE).exp()
        votes.append((weight[..., None] * has[index]).sum(dim=1) / weight.sum(dim=1, keepdim=True))
    return torch.cat(votes)


def linear_scores(
    train: Tensor, labels: Tensor, test: Tensor, classes: int, *, penalties: Sequence[float] = PENALTIES
) -> Tensor:
    """The scores of each class, float64 (m, C).

    train: standardised vectors (n, D), like samples beside one another; test: (m, D). labels: int64 (n,) for one label
    each, float32 (n, C) for several.
    """
    train, test = train.double(), test.double()
    penalty = penalties[0] if len(penalties) == 1 else _chosen(train, labels, classes, penalties)
    return _with_bias(test) @ fit(train, labels, classes, penalty)


def _chosen(train: Tensor, labels: Tensor, classes: int, penalties: Sequence[float]) -> float:
    """The penalty whose scores of held-out folds are the best, all folds together."""
    fold = assign_folds(labels)
    held = [one for n in range(FOLDS) if 0 < int((one := fold == n).sum()) < len(labels)]
    while sum(int(one.sum()) for one in held[:-1]) >= ENOUGH:
        held.pop()
    if not held:
        return penalties[0]
    starts: list[Tensor | None] = [None] * len(held)
    best, found = penalties[0], -1.0
    for penalty in penalties:
        made, true = [], []
        for n, one in enumerate(held):
            starts[n] = weights = fit(train[~one], labels[~one], classes, penalty, starts[n])
            made.append(_with_bias(train[one]) @ weights)
            true.append(labels[one])
        reached = score(torch.cat(made), torch.cat(true))
        if reached > found:
            best, found = penalty, reached
    return best


def fit(x: Tensor, labels: Tensor, classes: int, penalty: float, start: Tensor | None = None) -> Tensor:
    """The weights float64 (D + 1, C), the last row a bias without penalty, that minimise the mean loss of x float64
    (n, D) plus penalty / 2 times the sum of their squares. The loss is cross-entropy; for several labels it is that of
    each class by itself, summed over the classes.
    """
    inputs = _with_bias(x)
    weights = (inputs.new_zeros(inputs.shape[1], classes) if start is None else start.clone()).requires_grad_()
    solver = torch.optim.LBFGS(
        [weights], max_iter=_ITERATIONS, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = _loss(inputs @ weights, labels) + penalty / 2 * weights[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()


def _loss(scores: Tensor, labels: Tensor) -> Tensor:
    if labels.ndim == 1:
        return F.cross_entropy(scores, labels)
    return F.binary_cross_entropy_with_logits(scores, labels.double(), reduction="none").sum(dim=1).mean()


def _with_bias(x: Tensor) -> Tensor:
    return torch.cat((x, x.new_ones(len(x), 1)), dim=1)


def assign_folds(labels: Tensor) -> Tensor:
    """The fold of each training sample, int64 (n,): FOLDS runs of neighbours, of each label by itself."""
    if labels.ndim > 1:
        return torch.arange(len(labels)) * FOLDS // len(labels)
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels)
    own = labels[order]
    place = torch.arange(len(labels)) - (counts.cumsum(dim=0) - counts)[own]
    fold = torch.empty_like(labels)
    fold[order] = place * FOLDS // counts[own]
    return fold


class AttentiveProbe(nn.Module):
    """Attention of one query over tokens (B, N, D), with `heads` heads, then a norm and a linear layer: (B, C)."""

    def __init__(self, width: int, classes: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.randn(width) * 0.02)
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))
        init_linear(self)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(tokens)
        key, value = (self._by_head(layer(x)) for layer in (self.key, self.value))
        query = self._by_head(self.query.expand(len(x), 1, -1))
        seen = F.scaled_dot_product_attention(query, key, value)
        scores: Tensor = self.out(seen.transpose(1, 2).flatten(1))
        return scores

    def _by_head(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1, self.heads, x.shape[2] // self.heads).transpose(1, 2)


def attentive_scores(
    train: Tensor, labels: Tensor, test: Tensor, classes: int, *, heads: int = 4, seed: int = 0, steps: int = STEPS
) -> Tensor:
    """The scores of each class, float32 (m, C).

    train and test: tokens (n, N, D) and (m, N, D) of any float type. labels: as in `linear_scores`. seed: of the
    weights and of the order.
    """
    width = train.shape[2]
    with seeded(seed):
        probe = AttentiveProbe(width, classes, heads if width % heads == 0 else 1)
    optimiser = torch.optim.AdamW(probe.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    draws = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    with torch.enable_grad():
        for step in range(steps):
            while len(order) < min(ROWS, len(train)):
                order = torch.cat((order, torch.randperm(len(train), generator=draws)))
            rows, order = order[:ROWS], order[ROWS:]
            for group in optimiser.param_groups:
                group["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / steps))
            scores = probe(train[rows].float())
            loss = (
                F.cross_entropy(scores, labels[rows])
                if labels.ndim == 1
                else F.binary_cross_entropy_with_logits(scores, labels[rows])
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    with torch.inference_mode():
        return torch.cat([probe(rows.float()) for rows in torch.split(test, ROWS)])
