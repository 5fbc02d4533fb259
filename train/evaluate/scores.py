"""How good the predicted classes of labelled samples are: accuracy and F1 for one label each, mAP for several."""

from __future__ import annotations

import torch
from torch import Tensor

KIND = "kind"
"""The field that says of which kind a question is; answers are scored by kind."""


def accuracy(scores: Tensor, label: Tensor) -> float:
    """The share of samples whose highest score (n, C) is that of their label int64 (n,); of equal ones the first."""
    return float((scores.argmax(dim=1) == label).double().mean())


def macro_f1(predicted: Tensor, label: Tensor) -> float:
    """The mean of the F1 scores of the classes that occur in either, both int64 (n,)."""
    scores = []
    for c in torch.unique(torch.cat((predicted, label))):
        own, true = predicted == c, label == c
        scores.append(2 * float((own & true).sum()) / float(own.sum() + true.sum()))
    return sum(scores) / len(scores)


def mean_average_precision(scores: Tensor, has: Tensor) -> float:
    """The mean over classes of the average precision; scores (n, C), has: which classes a sample has, 0 or 1 (n, C).

    Samples with equal scores count as one rank, as in scikit-learn. Classes that no sample has do not count. ValueError
    if no class counts.
    """
    precisions = [_average_precision(scores[:, c], has[:, c] > 0) for c in range(scores.shape[1]) if has[:, c].any()]
    if not precisions:
        raise ValueError("no sample has a class; mAP needs labels")
    return sum(precisions) / len(precisions)


def _average_precision(score: Tensor, has: Tensor) -> float:
    order = score.argsort(descending=True)
    score, hits = score[order], has[order].double().cumsum(dim=0)
    last = torch.ones_like(has)
    last[:-1] = score[1:] != score[:-1]
    hits, rank = hits[last], (torch.arange(len(score), device=score.device) + 1)[last]
    gained = torch.diff(hits, prepend=hits.new_zeros(1))
    return float((gained * hits / rank).sum() / hits[-1])


def score(scores: Tensor, labels: Tensor) -> float:
    """Accuracy if `labels` is int64 (n,), mAP if it is float32 (n, C)."""
    return accuracy(scores, labels) if labels.ndim == 1 else mean_average_precision(scores, labels)


def majority(train: Tensor, test: Tensor, classes: int) -> float:
    """The score on `test` of a guess that knows only how often each class is in `train`."""
    frequency = torch.bincount(train, minlength=classes).float() if train.ndim == 1 else train.mean(dim=0)
    return score(frequency.expand(len(test), -1), test)
