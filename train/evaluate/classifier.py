"""A classifier: the encoder of a masked autoencoder, the mean of its tokens, and a linear layer.

Fine-tuning as in MAE (He et al., 2022, appendix A.1) and VideoMAE (Tong et al., 2022, appendix): no token is hidden,
tokens are averaged, and labels are mixed (mixup) and smoothed. Mixup (Zhang et al., 2018) mixes two samples and their
labels by a weight from a Beta distribution. Here one weight serves a whole batch, whose samples are mixed with those of
the batch in reverse order; it is drawn from the keys of the batch, so it needs no global random state.

Differs from the authors' code in: no CutMix, no RandAugment, no random erasing and no drop path; the norm stands before
the mean over tokens, not after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.modalities.fields import LABELS
from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.rng import sample_rng
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.train.core.losses import Losses, weighted
from maskstream.train.core.model import Grids, Model, ModelConfig
from maskstream.train.nn.masked_autoencoder import AutoencoderConfig

HEAD_STD = 2e-5
"""The deviation of the head's initial weights, MAE's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierConfig(ModelConfig[BatchT], Generic[BatchT]):
    """of: the autoencoder whose encoder and tokens are used. classes: their number. several: samples have lists of
    classes (the field `labels`), not one label. mixup: the parameter of the Beta distribution, 0 for no mixing; only
    for one label each. smoothing: the share of a label that is spread over all classes.
    """

    of: AutoencoderConfig[BatchT]
    classes: int
    several: bool = False
    mixup: float = 0.8
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"a classifier needs two classes or more, got classes={self.classes}")
        if self.mixup < 0 or not 0 <= self.smoothing < 1:
            raise ValueError(
                f"mixup must be >= 0 and smoothing lie in [0, 1), got mixup={self.mixup}, smoothing={self.smoothing}"
            )

    @property
    def most_labels(self) -> int | None:
        """The number of classes."""
        return self.classes

    def make(self, grids: Grids) -> Classifier[BatchT]:
        """See ModelConfig."""
        return Classifier(self, grids)


class Classifier(Model[BatchT]):
    """Scores classes; its encoder has the names of the autoencoder's, so that its weights can be loaded."""

    def __init__(self, config: ClassifierConfig[BatchT], grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = config
        whole = config.of.make(grids)
        self.tokens, self.encoder = whole.tokens, whole.encoder
        self.head = nn.Linear(config.of.width, config.classes)
        nn.init.normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def scores(self, batch: BatchT) -> Tensor:
        """The score of each class, float32 (B, classes); the batch's masks hide nothing."""
        return self._scores(self.token_inputs(batch))

    def loss(self, batch: BatchT) -> Losses:
        """The cross-entropy of the label, or the mean over classes if samples have several; samples without a label
        do not count.
        """
        inputs, labels = self.token_inputs(batch), labels_of(batch, self.config.several)
        if self.config.several:
            error = F.binary_cross_entropy_with_logits(self._scores(inputs), labels, reduction="none").mean(dim=1)
            return Losses(parts={"classification": weighted(error, (labels.sum(dim=1) > 0).float())})
        target = F.one_hot(labels.clamp_min(0), self.config.classes).float()
        target = target * (1 - self.config.smoothing) + self.config.smoothing / self.config.classes
        known = (labels >= 0).float()
        if self.training and self.config.mixup:
            share = mixup_share(batch, self.config.mixup)
            inputs, target = (share * x + (1 - share) * x.flip(0) for x in (inputs, target))
            known = known * known.flip(0)
        error = -(target * F.log_softmax(self._scores(inputs), dim=1)).sum(dim=1)
        return Losses(parts={"classification": weighted(error, known)})

    def reconstructed(self, batch: BatchT) -> BatchT:
        """The batch as it is: nothing is hidden from a classifier."""
        return batch

    def token_inputs(self, batch: BatchT) -> Tensor:
        """All tokens of a batch as the encoder reads them, float32 (B, N, n_inputs)."""
        data, _ = self.tokens.of(batch)
        return self.tokens.inputs(self.tokens.split(data))

    def token_features(self, batch: BatchT) -> Tensor:
        """The encoder's output for all tokens of a batch: (B, N, D)."""
        return self._encoded(self.token_inputs(batch))

    def features(self, batch: BatchT) -> Tensor:
        """The mean of the encoder's output over all tokens, float32 (B, D)."""
        return self.token_features(batch).float().mean(dim=1)

    def _encoded(self, inputs: Tensor) -> Tensor:
        index = torch.arange(inputs.shape[1], device=inputs.device).expand(len(inputs), -1)
        encoded = cast(Tensor, self.encoder(inputs, index))
        return encoded[:, 1:] if self.config.of.class_token else encoded

    def _scores(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.head(self._encoded(inputs).float().mean(dim=1))
        return found.float()


def labels_of(batch: object, several: bool) -> Tensor:
    """The labels of a batch: int64 (B,), or float32 (B, classes) if samples have lists of classes.

    ValueError if the batch has none.
    """
    if not isinstance(batch, Batch):
        raise ValueError(f"a {type(batch).__name__} has no labels; a classifier needs a batch of a loader")
    if not several:
        return batch.label
    found = batch.fields.get(LABELS)
    if not isinstance(found, Tensor):
        raise ValueError(f"the batch has no field {LABELS!r}; give the data config fields=({LABELS!r},)")
    return found


def mixup_share(batch: object, alpha: float) -> float:
    """The share of a sample in its mixture, from Beta(alpha, alpha): a function of the keys of the batch."""
    keys = "\0".join(batch.key) if isinstance(batch, Batch) else ""
    return float(sample_rng(0, 0, keys, 0, "mixup of labels").beta(alpha, alpha))
