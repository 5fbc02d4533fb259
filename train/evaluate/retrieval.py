"""Retrieval: document vectors of a text model, BM25 scores, and ranks of the relevant documents.

Q queries, C documents, D channels. Queries without a relevant document are ignored. Among documents with equal scores,
irrelevant ones are ranked first, so a model that scores all documents equally gains nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskstream.shards.arrays import Int64s
from maskstream.train.nn.token_model import TokenModel

Ids = Sequence[Int64s]
"""Documents as token ids, each int64 (n,)."""

Pooling = Literal["first", "mean"]
"""A document's vector: the output for its first token, [CLS], or the mean over all of its tokens."""
_AT_ONCE = 64


@torch.inference_mode()
def sentence_vectors(model: TokenModel, documents: Ids, *, pooling: Pooling = "first") -> Tensor:
    """Return the vectors of documents, float32 (C, D), with no token hidden.

    Args:
        model: The text model; it is put into eval mode.
        documents: Token ids of each document, beginning with [CLS].
        pooling: Reduction of tokens to a vector.

    Raises:
        ValueError: The pooling is unknown, or a document is empty or longer than the model allows.
    """
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling must be one of {', '.join(get_args(Pooling))}, got {pooling!r}")
    if any(len(one) == 0 for one in documents):
        raise ValueError("a document without tokens has no vector; leave it out")
    model.eval()
    order = sorted(range(len(documents)), key=lambda i: len(documents[i]))
    vectors = torch.empty(len(documents), model.config.width)
    for start in range(0, len(order), _AT_ONCE):
        chosen = order[start : start + _AT_ONCE]
        lengths = torch.tensor([len(documents[i]) for i in chosen])
        edges = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
        ids = torch.from_numpy(np.concatenate([documents[i] for i in chosen]))
        places = torch.arange(len(ids)) - torch.repeat_interleave(edges[:-1].long(), lengths)
        x = model.encode_ids(ids, places, edges, int(lengths.max())).float()
        if pooling == "first":
            vectors[chosen] = x[edges[:-1].long()]
        else:
            document = torch.repeat_interleave(torch.arange(len(chosen)), lengths)
            vectors[chosen] = x.new_zeros(len(chosen), x.shape[1]).index_add_(0, document, x) / lengths[:, None]
    return vectors


def bm25_scores(queries: Ids, documents: Ids, vocabulary: int, *, k: float = 1.2, b: float = 0.75) -> Tensor:
    """Return the BM25 scores of documents (Robertson and Zaragoza, 2009), float32 (Q, C).

    Args:
        queries: Token ids of each query.
        documents: Token ids of each document.
        vocabulary: Number of possible ids.
        k: Saturation of term counts.
        b: Strength of length normalisation.
    """
    counts = np.zeros((len(documents), vocabulary), np.float32)
    for row, ids in enumerate(documents):
        np.add.at(counts[row], ids, 1)
    lengths = counts.sum(1, keepdims=True)
    having = (counts > 0).sum(0)
    rarity = np.log1p((len(documents) - having + 0.5) / (having + 0.5)).astype(np.float32)
    weighed = rarity * counts * (k + 1) / (counts + k * (1 - b + b * lengths / lengths.mean()))
    asked = np.zeros((len(queries), vocabulary), np.float32)
    for row, ids in enumerate(queries):
        np.add.at(asked[row], ids, 1)
    return torch.from_numpy(asked @ weighed.T)


def split_in_halves(ids: Int64s, begin: int, end: int, longest: int) -> tuple[Int64s, ...]:
    """Split a document into two documents.

    Args:
        ids: Ids of the document without special tokens, int64 (n,).
        begin: Id to put before each half.
        end: Id to put after each half.
        longest: Largest length of a half, with both. The first half is cut at its start, the second at its end.
    """
    middle, room = len(ids) // 2, longest - 2
    parts = ids[:middle][-room:], ids[middle:][:room]
    return tuple(np.concatenate(([begin], part, [end])) for part in parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Retrieval:
    """Ranking figures, averaged over queries.

    Attributes:
        mrr: Mean of 1 / rank of the first relevant document.
        recall: Fraction of relevant documents among the first k, by k.
        queries: Number of queries.
    """

    mrr: float
    recall: dict[int, float]
    queries: int


def cosine_scores(queries: Tensor, documents: Tensor) -> Tensor:
    """Return the cosines of vectors (Q, D) and (C, D), float32 (Q, C); 0 for a vector of length 0.

    Args:
        queries: Vectors (Q, D).
        documents: Vectors (C, D).
    """
    return F.normalize(queries.float(), dim=1) @ F.normalize(documents.float(), dim=1).T


def measure_ranking(scores: Tensor, relevant: Tensor, *, ks: Sequence[int] = (1, 10, 100)) -> Retrieval:
    """Measure a ranking by scores.

    Args:
        scores: Scores (Q, C); higher is better.
        relevant: True for relevant documents, bool (Q, C).
        ks: Values of k for recall.

    Raises:
        ValueError: Shapes differ, a k is below 1, a score is NaN, or no query has a relevant document.
    """
    if scores.ndim != 2 or scores.shape != relevant.shape or relevant.dtype != torch.bool:
        raise ValueError(
            f"scores and relevant must have the shape (Q, C), and relevant must be boolean, got {tuple(scores.shape)} "
            f"and {tuple(relevant.shape)} of {relevant.dtype}"
        )
    if any(k < 1 for k in ks):
        raise ValueError(f"recall at k needs k to be at least 1, got {tuple(ks)}")
    if scores.isnan().any():
        raise ValueError("a score is NaN; check the vectors that the scores are computed from")
    counted = relevant.any(dim=1)
    if not counted.any():
        raise ValueError("no query has a relevant document; retrieval needs at least one")
    scores, relevant = scores[counted], relevant[counted]
    # a stable sort with irrelevant documents first puts them before relevant ones of the same score
    order = relevant.int().argsort(dim=1, stable=True)
    order = order.gather(1, scores.gather(1, order).argsort(dim=1, descending=True, stable=True))
    hits = relevant.gather(1, order)
    first = hits.int().argmax(dim=1)
    found = hits.cumsum(dim=1).double() / hits.sum(dim=1, keepdim=True)
    recall = {k: float(found[:, min(k, found.shape[1]) - 1].mean()) for k in ks}
    return Retrieval(mrr=float((1 / (first.double() + 1)).mean()), recall=recall, queries=len(scores))
