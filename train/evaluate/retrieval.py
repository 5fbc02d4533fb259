"""Retrieval: how early the relevant documents stand in the ranking of a query.

Q queries, C documents. A query without a relevant document does not count. Of documents with equal scores, irrelevant
ones are ranked first, so a model that gives all documents one score gains nothing by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Retrieval:
    """The means over `queries` queries. mrr: of 1 / rank of the first relevant document. recall: by k, of the share of
    the relevant documents that are among the first k.
    """

    mrr: float
    recall: dict[int, float]
    queries: int


def cosine_scores(queries: Tensor, documents: Tensor) -> Tensor:
    """The cosines of vectors (Q, D) and (C, D), float32 (Q, C); 0 for a vector of length 0."""
    return F.normalize(queries.float(), dim=1) @ F.normalize(documents.float(), dim=1).T


def retrieval(scores: Tensor, relevant: Tensor, *, ks: Sequence[int] = (1, 10, 100)) -> Retrieval:
    """The figures of a ranking by `scores` (Q, C), higher is better; relevant: bool (Q, C).

    ValueError for other shapes, a k below 1, a score that is NaN, or if no query has a relevant document.
    """
    if scores.ndim != 2 or scores.shape != relevant.shape or relevant.dtype != torch.bool:
        raise ValueError(
            f"scores and relevant must be (Q, C), relevant of bool; got {tuple(scores.shape)} and "
            f"{tuple(relevant.shape)} of {relevant.dtype}"
        )
    if any(k < 1 for k in ks):
        raise ValueError(f"recall at k needs k of 1 or more, got {tuple(ks)}")
    if scores.isnan().any():
        raise ValueError("a score is NaN; look for it in the vectors that the scores were made from")
    counted = relevant.any(dim=1)
    if not counted.any():
        raise ValueError("no query has a relevant document; retrieval needs one")
    scores, relevant = scores[counted], relevant[counted]
    # a stable sort with irrelevant documents first puts them before relevant ones of the same score
    order = relevant.int().argsort(dim=1, stable=True)
    order = order.gather(1, scores.gather(1, order).argsort(dim=1, descending=True, stable=True))
    hits = relevant.gather(1, order)
    first = hits.int().argmax(dim=1)
    found = hits.cumsum(dim=1).double() / hits.sum(dim=1, keepdim=True)
    recall = {k: float(found[:, min(k, found.shape[1]) - 1].mean()) for k in ks}
    return Retrieval(mrr=float((1 / (first.double() + 1)).mean()), recall=recall, queries=len(scores))
