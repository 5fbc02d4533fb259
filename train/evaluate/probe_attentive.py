"""The attentive probe: a learned query attends to the tokens of a frozen encoder, and a linear layer reads the result.

Bardes et al., Revisiting Feature Prediction for Learning Visual Representations from Video (V-JEPA), 2024, section 4.1,
without its MLP.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.train.core.process import seeded
from maskstream.train.nn.init import init_linear

STEPS, ROWS = 300, 64
"""Steps of AdamW, and samples in each."""
LR, WEIGHT_DECAY = 3e-3, 1e-2


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
