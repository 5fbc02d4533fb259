"""The k-NN probe: neighbours by cosine vote for a class, weighted by exp(cosine / 0.07).

Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018, section 3.4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.07
_AT_ONCE = 1024


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
