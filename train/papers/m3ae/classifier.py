"""Answers to questions about images as classes: the encoder of images with texts, and a head over both first tokens.

The head is that of M3AE and METER (Dou et al., 2022): a layer to the same width, a layer norm, a GELU, and a layer to
the classes. They train it by binary cross-entropy over soft scores of several annotators; a sample has one answer here,
and the loss is its cross-entropy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch
from maskstream.train.core.losses import Losses, weighted
from maskstream.train.core.model import Grids, Model
from maskstream.train.nn.transformer import init_linear

from .model import ImageTextSizes, Pooler


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextClassifierConfig(ImageTextSizes):
    """The sizes of the encoder. answers: the number of classes."""

    answers: int = 2

    def __post_init__(self) -> None:
        ImageTextSizes.__post_init__(self)
        if self.answers < 2:
            raise ValueError(f"a classifier needs two answers or more, got answers={self.answers}")

    @property
    def needs_labels(self) -> bool:
        return True

    @property
    def most_labels(self) -> int | None:
        """The number of classes."""
        return self.answers

    def make(self, grids: Grids) -> ImageTextClassifier:
        """See ModelConfig."""
        return ImageTextClassifier(self, grids)


class ImageTextClassifier(Model[ImageTextBatch]):
    """Scores classes; encoder and pooler have the names of the autoencoder's, so that its weights can be loaded."""

    def __init__(self, config: ImageTextClassifierConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = config
        self.n_answers = config.answers
        self.encoder = config.encoder(grids)
        self.pooler = Pooler(config.width)
        both = 2 * config.width
        self.head = nn.Sequential(
            nn.Linear(both, both), nn.LayerNorm(both, eps=config.eps), nn.GELU(), nn.Linear(both, config.answers)
        )
        init_linear(self)
        self.encoder.init_tables()

    def scores(self, batch: ImageTextBatch) -> Tensor:
        """The logits of the classes, float32 (B, classes); masks hide nothing."""
        return cast(Tensor, self.head(self.pooler(*self.encoder.whole(batch)))).float()

    def loss(self, batch: ImageTextBatch) -> Losses:
        """The cross-entropy of the label in nats; samples without a label do not count."""
        error = F.cross_entropy(self.scores(batch), batch.label.clamp_min(0), reduction="none")
        return Losses(parts={"answers": weighted(error, (batch.label >= 0).float())})

    def reconstructed(self, batch: ImageTextBatch) -> ImageTextBatch:
        """The batch as it is: nothing is hidden from a classifier."""
        return batch
