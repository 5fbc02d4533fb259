"""Label losses of classifiers: class weights, label smoothing, mixup and CutMix.

Mixup (Zhang et al., 2018) mixes two samples and their labels by a ratio from a Beta distribution. CutMix (Yun et al.,
2019) pastes a box of one sample into the other, and the ratio is the remaining area; for a clip, the box is the same in
all frames. Images, clips and spectrograms are mixed before the model reads them; mixed pixels are rounded, as in timm's
loader. One mixture is used for a whole batch, which is mixed with itself in reverse order, as in timm. It is drawn from
the keys of the batch, so a resumed run draws the same mixtures.

Labels are smoothed as by Szegedy et al. (2016). Class weights multiply both the error of a sample and its weight in the
mean, as in torch's cross-entropy.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskstream.pipelines.modalities.audio.batch import AudioBatch
from maskstream.pipelines.modalities.fields import LABELS
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.rng import sample_rng
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.arrays import Bools, Int64s
from maskstream.shards.config import NOT_IDENTITY
from maskstream.shards.limits import AtLeastTwo, NaturalFloat, PositiveInt, ProperProportion
from maskstream.train.core.model import Losses, LossPart, ModelConfig

MIXED: dict[type[Batch], tuple[str, int]] = {
    ImageBatch: ("image", 1),
    VideoBatch: ("video", 2),
    AudioBatch: ("spectrogram", 1),
}
"""The batches that can be mixed: the field that is, and the first of the two axes that a box cuts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelsConfig(ModelConfig[BatchT], ABC, Generic[BatchT]):
    """A classifier of samples.

    Attributes:
        classes: Number of classes.
        several: Whether samples have lists of classes (the field `labels`) instead of one label.
        smoothing: Fraction of a label that is spread over all classes.
        class_weights: Weights of classes in the loss; () for equal weights. Only for one label per sample.
        test_views: Number of views of a test sample (see `classifier.score_views`).
        mixup: Parameter of mixup's Beta distribution; 0 for no mixup.
        cutmix: Parameter of CutMix's Beta distribution; 0 for no CutMix. With both, each batch uses one of them.
    """

    classes: AtLeastTwo
    several: bool = False
    smoothing: ProperProportion = 0.1
    class_weights: tuple[NaturalFloat, ...] = ()
    test_views: PositiveInt = field(default=1, metadata=NOT_IDENTITY)
    mixup: NaturalFloat = 0.0
    cutmix: NaturalFloat = 0.0

    def validate(self) -> None:
        if self.class_weights and len(self.class_weights) != self.classes:
            raise ValueError(
                f"class_weights must have a number for each of {self.classes} classes, got {self.class_weights}"
            )
        if self.class_weights and self.several:
            raise ValueError("class_weights need samples with one label each, but these samples have lists of classes")

    @property
    def most_labels(self) -> int | None:
        """The number of classes."""
        return self.classes


@dataclass(frozen=True, slots=True)
class LabelMixture:
    """Mixture of a batch with the same batch in reverse order.

    Attributes:
        share: Weight of each sample in its mixture.
        box: Mask over the two cut axes, True where values are from the other sample; None for mixup.
    """

    share: float
    box: Bools | None = None

    def of(self, media: Tensor, axis: int) -> Tensor:
        """Mix media (B, ...) in their dtype; a box cuts `axis` and the next one.

        Args:
            media: Media of a batch, mixed with the same batch in reverse order.
            axis: First axis of the box.
        """
        other = media.flip(0)
        if self.box is not None:
            box = torch.from_numpy(self.box).to(media.device)
            return torch.where(box.reshape(*box.shape, *[1] * (media.ndim - axis - 2)), other, media)
        mixed = other.float().lerp_(media.float(), self.share)
        return mixed.to(media.dtype) if media.is_floating_point() else mixed.round_().to(media.dtype)


def mix_batch(batch: BatchT, mixup: float, cutmix: float) -> tuple[BatchT, LabelMixture | None]:
    """Mix a batch with itself by mixup or CutMix.

    Args:
        batch: The batch.
        mixup: Parameter of mixup; 0 for none.
        cutmix: Parameter of CutMix; 0 for none.

    Returns:
        The mixed batch and its mixture; the batch itself and None if both parameters are 0.

    Raises:
        ValueError: The batch cannot be mixed, such as text.
    """
    if not mixup and not cutmix:
        return batch, None
    if type(batch) not in MIXED:
        raise ValueError(f"a {type(batch).__name__} cannot be mixed; set model.mixup=0 and model.cutmix=0")
    whole: Any = batch
    name, axis = MIXED[type(batch)]
    media: Tensor = getattr(whole, name)
    mixture = draw_mixture(whole.key, (media.shape[axis], media.shape[axis + 1]), mixup, cutmix)
    return replace(whole, **{name: mixture.of(media, axis)}), mixture


def draw_mixture(key: Sequence[str], size: tuple[int, int], mixup: float, cutmix: float) -> LabelMixture:
    """Draw the mixture of a batch as a function of its keys; if both parameters are above 0, each method has
    probability 0.5.

    Args:
        key: Keys of the batch.
        size: Sizes of the axes that CutMix cuts.
        mixup: Parameter of mixup's Beta distribution.
        cutmix: Parameter of CutMix's Beta distribution; not both are 0.
    """
    keys = "\0".join(key)
    draw = sample_rng(0, 0, keys, 0, "cutmix of labels")
    if cutmix and (not mixup or draw.random() < 0.5):
        box = cut_box(*size, float(draw.beta(cutmix, cutmix)), draw)
        return LabelMixture(1 - float(box.mean()), box)
    return LabelMixture(float(sample_rng(0, 0, keys, 0, "mixup of labels").beta(mixup, mixup)))


def cut_box(rows: int, columns: int, share: float, draw: np.random.Generator) -> Bools:
    """Draw a box with sides sqrt(1 - share) of the whole around a uniform position, clipped at the edges.

    Args:
        rows: Length of the first axis.
        columns: Length of the second axis.
        share: Fraction of the area outside the unclipped box.
        draw: Random generator.

    Returns:
        True inside the box, bool (rows, columns).
    """
    box = np.zeros((rows, columns), dtype=bool)
    spans = []
    for n in (rows, columns):
        side, middle = round(n * (1 - share) ** 0.5), int(draw.integers(n))
        spans.append(slice(max(middle - side // 2, 0), middle - side // 2 + side))
    box[tuple(spans)] = True
    return box


def label_loss(config: LabelsConfig[BatchT], scores: Tensor, labels: Tensor, mixture: LabelMixture | None) -> Losses:
    """Return the cross-entropy of the label, or the mean over classes if samples have several labels.

    Samples without a label are ignored.

    Args:
        config: Settings of the classifier.
        scores: Logits float32 (B, classes), of mixed samples if there is a mixture.
        labels: Labels; see `need_labels`.
        mixture: Mixture of the batch.
    """
    if config.several:
        target, known = labels, (labels.sum(dim=1) > 0).float()
    else:
        target, known = F.one_hot(labels.clamp_min(0), config.classes).to(scores), (labels >= 0).float()
    if mixture is not None:
        target = mixture.share * target + (1 - mixture.share) * target.flip(0)
        known = known * known.flip(0)
    if config.several:
        error = F.binary_cross_entropy_with_logits(scores, target, reduction="none").mean(dim=1)
        return Losses(parts={"classification": LossPart(total=(error * known).sum(), weight=known.sum())})
    weights = torch.tensor(config.class_weights, device=scores.device) if config.class_weights else None
    error = F.cross_entropy(scores, target, weight=weights, reduction="none", label_smoothing=config.smoothing)
    counted = known if weights is None else known * (target @ weights)
    return Losses(parts={"classification": LossPart(total=(error * known).sum(), weight=counted.sum())})


def need_labels(batch: object, several: bool) -> Tensor:
    """Return the labels of a batch.

    Args:
        batch: The batch.
        several: Whether samples have lists of classes.

    Returns:
        int64 (B,), or float32 (B, classes) if `several`.

    Raises:
        ValueError: The batch has no labels.
    """
    if not isinstance(batch, Batch):
        raise ValueError(f"a {type(batch).__name__} has no labels; a classifier needs a batch from a loader")
    if not several:
        return batch.label
    found = batch.fields.get(LABELS)
    if not isinstance(found, Tensor):
        raise ValueError(f"the batch has no field {LABELS!r}; set fields=({LABELS!r},) in the data config")
    return found


def compute_balanced_weights(labels: Int64s, classes: int) -> tuple[float, ...]:
    """Return the weight of each class, samples / (classes x samples of the class), like scikit-learn's "balanced".

    Args:
        labels: int64 (n,); -1 for none.
        classes: Number of classes.

    Raises:
        ValueError: A class has no sample.
    """
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    if (missing := np.flatnonzero(counts == 0)).size:
        raise ValueError(f"{missing.size} of {classes} classes have no samples, so they cannot be weighted: {missing}")
    return tuple(float(n) for n in np.round(counts.sum() / (classes * counts), 6))
