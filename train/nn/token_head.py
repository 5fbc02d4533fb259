"""The head that predicts token ids."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TokenHead(nn.Module):
    """Logits of token ids (..., vocabulary) of tokens (..., D): a linear layer, a GELU, a layer norm, and the table of
    the ids' embeddings (vocabulary, D), which is given, with a bias of its own (Devlin et al., 2019, and their code).
    """

    def __init__(self, width: int, vocabulary: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        return F.linear(self.norm(F.gelu(self.dense(x))), table, self.bias)
