"""How good predictions are: accuracy, F1 and mAP of classes; VQA accuracy, exact match and ROUGE-L of texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

KIND = "kind"
"""The field that says of which kind a question is; answers are scored by kind."""
ARTICLES = frozenset({"a", "an", "the"})
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


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


def normalise(answer: str) -> str:
    """An answer in lower case, without punctuation and articles, and with digits for the numbers zero to ten.

    Source: the VQA evaluation (Antol et al., 2015), without its list of contractions.
    """
    words = re.sub(r"[^\w\s]", " ", answer.lower().replace("'", "")).split()
    kept = [str(NUMBERS.index(word)) if word in NUMBERS else word for word in words if word not in ARTICLES]
    return " ".join(kept)


def vqa_accuracy(answer: str, answers: Sequence[str]) -> float:
    """The accuracy of VQA in [0, 1]: the mean over all subsets without one person of min(1, matches / 3).

    answers: those of several people, as a rule ten. A single answer, or aliases of one, count by `exact_match`.
    """
    said, given = normalise(answer), [normalise(one) for one in answers]
    matches = given.count(said)
    others = (matches - (one == said) for one in given)
    return sum(min(1.0, other / 3) for other in others) / len(given)


def exact_match(answer: str, answers: Sequence[str]) -> float:
    """1 if the answer is one of the given, normalised, else 0."""
    return float(normalise(answer) in {normalise(one) for one in answers})


def rouge_l(text: str, references: Sequence[str]) -> float:
    """The best F1 of the longest common subsequence of words with a reference (Lin, 2004), in [0, 1]."""
    words = normalise(text).split()
    return max((_overlap(words, normalise(one).split()) for one in references), default=0.0)


def _overlap(one: Sequence[str], other: Sequence[str]) -> float:
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for i, same in enumerate(other, 1):
            before, row[i] = row[i], before + 1 if word == same else max(row[i], row[i - 1])
    return 2 * row[-1] / max(len(one) + len(other), 1)
