"""Classifiers of texts: what they share, which is how ids enter and how labels are scored.

Shapes: B rows of L tokens, D channels, C classes. Rows are cut to the longest of a batch. Tokens that a mask hides
enter with the ids that it gives them, as a rule [MASK].
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.train.core.losses import Losses, weighted
from maskstream.train.core.model import Grids, Model, ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TextClassifierConfig(ModelConfig[TextBatch]):
    """vocabulary: the number of token ids. width: the channels of a token. labels: the number of classes."""

    vocabulary: int = 30522
    width: int = 768
    labels: int = 2

    def __post_init__(self) -> None:
        if self.labels < 2 or min(self.vocabulary, self.width) < 1:
            raise ValueError(
                "a classifier needs two labels or more, an id and a channel, got "
                f"labels={self.labels}, vocabulary={self.vocabulary}, width={self.width}"
            )

    @property
    def needs_labels(self) -> bool:
        return True

    @property
    def most_labels(self) -> int | None:
        """The number of classes."""
        return self.labels


@dataclass(frozen=True, kw_only=True, slots=True)
class TextReading:
    """What a classifier makes of rows. scores: logits float32 (B, C). attention: float32 (B, L), the weights of the
    tokens, which sum to 1; None in a model that has no single attention.
    """

    scores: Tensor
    attention: Tensor | None = None


class TextClassifier(Model[TextBatch]):
    """Scores classes of rows from the vectors of their ids, so that gradients by these vectors can be taken."""

    def __init__(self, config: TextClassifierConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.vocabulary = config.vocabulary

    @abstractmethod
    def table(self, ids: Tensor) -> Tensor:
        """The vectors of ids int64 (B, L): float (B, L, D)."""

    @abstractmethod
    def read(self, vectors: Tensor, batch: TextBatch) -> TextReading:
        """What the model makes of the vectors (B, L, D) of the batch's first L tokens; those of `valid` count."""

    def vectors(self, batch: TextBatch) -> Tensor:
        """The vectors of the ids that the model reads, up to the longest row of the batch: (B, L, D).

        ValueError, on a CPU, for ids that the model does not have.
        """
        ids = batch.inputs[:, : int(batch.lengths.max())]
        if not ids.is_cuda and int(ids.max()) >= self.vocabulary:
            raise ValueError(
                f"the model has the ids 0 to {self.vocabulary - 1}, got {int(ids.max())}; set model.vocabulary to that "
                "of the split's tokenizer or more"
            )
        return self.table(ids)

    def scores(self, batch: TextBatch) -> Tensor:
        """The logits of the classes, float32 (B, C)."""
        with nullcontext() if batch.tokens.is_cuda else torch.autocast("cpu", enabled=False):
            return self.read(self.vectors(batch), batch).scores.float()

    def loss(self, batch: TextBatch) -> Losses:
        """The cross-entropy of the label in nats; samples without a label do not count."""
        error = F.cross_entropy(self.scores(batch), batch.label.clamp_min(0), reduction="none")
        return Losses(parts={"classification": weighted(error, (batch.label >= 0).float())})

    def reconstructed(self, batch: TextBatch) -> TextBatch:
        """The batch as it is: a classifier predicts no tokens."""
        return batch
