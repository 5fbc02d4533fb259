"""A bidirectional LSTM with additive attention that classifies texts.

The classifier of Jain and Wallace (2019), as Recursive ROAR (Madsen et al., 2022) retrains it. Shapes: see
text_classifier.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.train.core.model import Grids

from .model import TextClassifier, TextClassifierConfig, TextReading


@dataclass(frozen=True, kw_only=True, slots=True)
class LSTMClassifierConfig(TextClassifierConfig):
    """hidden: the channels of each direction of the LSTM, and of its attention."""

    width: int = 300
    hidden: int = 128

    def __post_init__(self) -> None:
        TextClassifierConfig.__post_init__(self)
        if self.hidden < 1:
            raise ValueError(f"hidden is at least 1 channel, got {self.hidden}")

    def make(self, grids: Grids) -> LSTMClassifier:
        """See ModelConfig."""
        return LSTMClassifier(self, grids)


class LSTMClassifier(TextClassifier):
    """The sum of the LSTM's outputs, weighted by the softmax of v tanh(W h + b), and a linear layer."""

    def __init__(self, config: LSTMClassifierConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        self.ids = nn.Embedding(c.vocabulary, c.width)
        nn.init.normal_(self.ids.weight, std=0.1)
        self.lstm = nn.LSTM(c.width, c.hidden, batch_first=True, bidirectional=True)
        self.asked = nn.Linear(2 * c.hidden, c.hidden)
        self.asks = nn.Linear(c.hidden, 1, bias=False)
        self.head = nn.Linear(2 * c.hidden, c.labels)

    def table(self, ids: Tensor) -> Tensor:
        return cast(Tensor, self.ids(ids))

    def read(self, vectors: Tensor, batch: TextBatch) -> TextReading:
        packed = pack_padded_sequence(vectors, batch.lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=vectors.shape[1])
        logits = self.asks(torch.tanh(self.asked(states)))[..., 0]
        hidden = ~batch.valid[:, : vectors.shape[1]]
        attention = logits.masked_fill(hidden, float("-inf")).softmax(dim=1)
        return TextReading(scores=self.head((attention[..., None] * states).sum(dim=1)), attention=attention)
