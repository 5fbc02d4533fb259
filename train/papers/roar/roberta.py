"""A transformer encoder that classifies texts by their first token, as RoBERTa is fine-tuned.

Liu et al. (2019); Recursive ROAR (Madsen et al., 2022) retrains it. Shapes: see text_classifier.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.train.core.model import Grids
from maskstream.train.nn.init import init_normal
from maskstream.train.nn.stacks import Stack
from maskstream.train.nn.token_ids import TokenIds

from .model import TextClassifier, TextClassifierConfig, TextReading


@dataclass(frozen=True, kw_only=True, slots=True)
class RobertaClassifierConfig(TextClassifierConfig):
    """depth: the blocks. heads: of their attention. mlp_ratio: of their feed-forward layers. eps: of all norms."""

    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    eps: float = 1e-5

    def __post_init__(self) -> None:
        TextClassifierConfig.__post_init__(self)
        if min(self.depth, self.heads, self.mlp_ratio) < 1 or self.width % self.heads:
            raise ValueError(
                f"width must be a multiple of heads, and all sizes at least 1, got width={self.width}, "
                f"heads={self.heads}, depth={self.depth}, mlp_ratio={self.mlp_ratio}"
            )

    def make(self, grids: Grids) -> RobertaClassifier:
        """See ModelConfig."""
        return RobertaClassifier(self, grids)


class RobertaClassifier(TextClassifier):
    """Ids with learned places, pre-norm blocks, and the first token through two linear layers with a tanh between."""

    def __init__(self, config: RobertaClassifierConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        (length,) = grids["text"].need("token", by="a text model")
        self.embed = TokenIds(c.vocabulary, c.width, length, learned=True, eps=c.eps)
        self.encoder = Stack(c.depth, c.width, c.heads, c.mlp_ratio, c.eps)
        self.head = nn.Sequential(nn.Linear(c.width, c.width), nn.Tanh(), nn.Linear(c.width, c.labels))
        init_normal(self, c.width)

    def table(self, ids: Tensor) -> Tensor:
        return cast(Tensor, self.embed.ids(ids))

    def read(self, vectors: Tensor, batch: TextBatch) -> TextReading:
        places = torch.arange(vectors.shape[1], device=vectors.device)
        mask = batch.valid[:, None, None, : vectors.shape[1]]
        x = self.encoder(self.embed.placed(vectors, places), mask)
        return TextReading(scores=cast(Tensor, self.head(x[:, 0])))
