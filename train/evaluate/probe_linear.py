"""The linear probe: logistic regression with an L2 penalty that is chosen on a part of the training samples.

The problem is convex and solved by L-BFGS from zero in float64, so the result does not depend on a seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .scores import score

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""The penalties that are tried, strongest first; of equally good ones the first is taken."""
HELD_OUT = 5
"""One training sample of this many is held out to choose the penalty."""
_ITERATIONS = 100


def linear_scores(
    train: Tensor, labels: Tensor, test: Tensor, classes: int, *, penalties: Sequence[float] = PENALTIES
) -> Tensor:
    """The scores of each class, float64 (m, C).

    train: standardised vectors (n, D) in an order that does not depend on labels; test: (m, D). labels: int64 (n,) for
    one label each, float32 (n, C) for several.
    """
    train, test = train.double(), test.double()
    held = _held_out(labels)
    best, found = penalties[0], -1.0
    if len(penalties) > 1 and held.any() and not held.all():
        weights: Tensor | None = None
        for penalty in penalties:
            weights = fitted(train[~held], labels[~held], classes, penalty, weights)
            reached = score(_with_bias(train[held]) @ weights, labels[held])
            if reached > found:
                best, found = penalty, reached
    return _with_bias(test) @ fitted(train, labels, classes, best)


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


def _held_out(labels: Tensor) -> Tensor:
    """Which training samples choose the penalty: of each label every fifth, in their order; bool (n,)."""
    if labels.ndim > 1:
        return torch.arange(len(labels)) % HELD_OUT == HELD_OUT - 1
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels)
    place = torch.arange(len(labels)) - (counts.cumsum(dim=0) - counts)[labels[order]]
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[order] = place % HELD_OUT == HELD_OUT - 1
    return held
