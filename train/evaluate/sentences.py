"""Vectors of documents by a text model, and the scores of BM25, for retrieval among documents.

Shapes: Q queries, C documents, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskstream.train.nn.token_model import TokenModel

Ids = Sequence[npt.NDArray[np.int64]]
"""Documents as token ids, each int64 (n,)."""

Pooling = Literal["first", "mean"]
"""A document's vector: that of its first token, [CLS], or the mean of all of its tokens' vectors."""
_AT_ONCE = 64


@torch.inference_mode()
def sentence_vectors(model: TokenModel, documents: Ids, *, pooling: Pooling = "first") -> Tensor:
    """The vectors of documents, float32 (C, D), in their order. The documents begin with [CLS], and nothing is hidden.

    ValueError for another pooling, an empty document, or one that is longer than the model reads.
    """
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling is one of {', '.join(get_args(Pooling))}, got {pooling!r}")
    if any(len(one) == 0 for one in documents):
        raise ValueError("a document of no tokens has no vector; leave it out")
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
    """The scores float32 (Q, C) of BM25 over token ids, with the usual k and b (Robertson and Zaragoza, 2009)."""
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


def halves(ids: npt.NDArray[np.int64], begin: int, end: int, longest: int) -> tuple[npt.NDArray[np.int64], ...]:
    """The first and the second half of a document's ids int64 (n,), without special tokens, each as a document.

    begin, end: the ids put before and after each half. longest: the most tokens of a half with them; the first half
    keeps its last tokens and the second its first ones.
    """
    middle, room = len(ids) // 2, longest - 2
    parts = ids[:middle][-room:], ids[middle:][:room]
    return tuple(np.concatenate(([begin], part, [end])) for part in parts)
