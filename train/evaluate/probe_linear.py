"""The linear probe: logistic regression with an L2 penalty that is chosen by cross-validation on the training samples.

A fold holds neighbours: samples are in the order of their keys, and those of one source, which are often alike, follow
one another. If like samples were trained on and held out, weak penalties would look too good.

The problem is convex and solved by L-BFGS from zero in float64, so the result does not depend on a seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .scores import score

PENALTIES = (1e1, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""The penalties that are tried, strongest first; of equally good ones the first is taken."""
FOLDS = 5
ENOUGH = 1000
"""No further fold is held out once this many samples were."""
_ITERATIONS = 100


def linear_scores(
    train: Tensor, labels: Tensor, test: Tensor, classes: int, *, penalties: Sequence[float] = PENALTIES
) -> Tensor:
    """The scores of each class, float64 (m, C).

    train: standardised vectors (n, D), like samples beside one another; test: (m, D). labels: int64 (n,) for one label
    each, float32 (n, C) for several.
    """
    train, test = train.double(), test.double()
    penalty = penalties[0] if len(penalties) == 1 else _chosen(train, labels, classes, penalties)
    return _with_bias(test) @ fitted(train, labels, classes, penalty)


def _chosen(train: Tensor, labels: Tensor, classes: int, penalties: Sequence[float]) -> float:
    """The penalty whose scores of held-out folds are the best, all folds together."""
    fold = folds(labels)
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
            starts[n] = weights = fitted(train[~one], labels[~one], classes, penalty, starts[n])
            made.append(_with_bias(train[one]) @ weights)
            true.append(labels[one])
        reached = score(torch.cat(made), torch.cat(true))
        if reached > found:
            best, found = penalty, reached
    return best


def fitted(x: Tensor, labels: Tensor, classes: int, penalty: float, start: Tensor | None = None) -> Tensor:
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


def folds(labels: Tensor) -> Tensor:
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
