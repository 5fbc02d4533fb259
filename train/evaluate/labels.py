"""What a classifier learns of the labels of a batch: weighted, smoothed, mixed.

Mixup (Zhang et al., 2018) mixes two samples and their labels by a share from a Beta distribution. CutMix (Yun et al.,
2019) puts a box of one into the other, and the share is that of the area which stays; here boxes are of whole tokens,
at all times of a clip the same. One mixture serves a whole batch, whose samples are mixed with those of the batch in
reverse order, as timm does. It is drawn from the keys of the batch, so a resumed run mixes the same.

Labels are smoothed as by Szegedy et al. (2016). Weights of classes multiply both the error of a sample and its share of
the mean, as torch's cross-entropy has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from maskstream.pipelines.modalities.fields import LABELS
from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.rng import sample_rng
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.config import NOT_IDENTITY
from maskstream.train.core.model import Losses, LossPart, ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelsConfig(ModelConfig[BatchT], Generic[BatchT]):
    """A classifier of samples. classes: their number. several: samples have lists of classes (the field `labels`), not
    one label. smoothing: the share of a label that is spread over all classes. class_weights: of the classes in the
    loss, () for equal ones; only for one label each. test_views: how often a sample is drawn for a test (see
    `finetune.score_views`).
    """

    classes: int
    several: bool = False
    smoothing: float = 0.1
    class_weights: tuple[float, ...] = ()
    test_views: int = field(default=1, metadata=NOT_IDENTITY)

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"a classifier needs two classes or more, got classes={self.classes}")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing must lie in [0, 1), got {self.smoothing}")
        if self.class_weights and (len(self.class_weights) != self.classes or min(self.class_weights) < 0):
            raise ValueError(
                f"class_weights is a number >= 0 for each of {self.classes} classes, got {self.class_weights}"
            )
        if self.class_weights and self.several:
            raise ValueError("class_weights are for samples with one label each, and these have lists of classes")
        if self.test_views < 1:
            raise ValueError(f"test_views must be at least 1, got {self.test_views}")

    @property
    def most_labels(self) -> int | None:
        """The number of classes."""
        return self.classes


@dataclass(frozen=True, slots=True)
class LabelMixture:
    """The mixture of a batch with itself in reverse order. share: of each sample in its mixture. box: bool, over the
    last two axes of the token grid, True where tokens are the other sample's; None where all are mixed by the share.
    """

    share: float
    box: npt.NDArray[np.bool_] | None = None

    def of(self, inputs: Tensor) -> Tensor:
        """The mixture of tokens (B, N, values)."""
        if self.box is None:
            return self.share * inputs + (1 - self.share) * inputs.flip(0)
        cut = torch.from_numpy(self.box).to(inputs.device).flatten().repeat(inputs.shape[1] // self.box.size)
        return torch.where(cut[:, None], inputs.flip(0), inputs)


def draw_mixture(batch: object, grid: tuple[int, ...], mixup: float, cutmix: float) -> LabelMixture | None:
    """The mixture of a batch, a function of its keys: of mixup or CutMix, by halves if both parameters are above 0.

    grid: of the tokens. mixup, cutmix: the parameters of their Beta distributions; None is returned if both are 0.
    """
    keys = "\0".join(batch.key) if isinstance(batch, Batch) else ""
    draw = sample_rng(0, 0, keys, 0, "cutmix of labels")
    if cutmix and (not mixup or draw.random() < 0.5):
        box = cut_box(grid[-2], grid[-1], float(draw.beta(cutmix, cutmix)), draw)
        return LabelMixture(1 - float(box.mean()), box)
    if not mixup:
        return None
    return LabelMixture(float(sample_rng(0, 0, keys, 0, "mixup of labels").beta(mixup, mixup)))


def cut_box(rows: int, columns: int, share: float, draw: np.random.Generator) -> npt.NDArray[np.bool_]:
    """A box whose sides are sqrt(1 - share) of the grid's, around a uniform place, without what lies beyond it."""
    box = np.zeros((rows, columns), dtype=bool)
    spans = []
    for n in (rows, columns):
        side, middle = round(n * (1 - share) ** 0.5), int(draw.integers(n))
        spans.append(slice(max(middle - side // 2, 0), middle - side // 2 + side))
    box[tuple(spans)] = True
    return box


def label_loss(config: LabelsConfig[BatchT], scores: Tensor, labels: Tensor, mixture: LabelMixture | None) -> Losses:
    """The cross-entropy of the label, or the mean over classes if samples have several; samples without a label do not
    count.

    scores: float32 (B, classes), of mixed samples if there is a mixture. labels: see `need_labels`.
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


def balanced_weights(labels: npt.NDArray[np.int64], classes: int) -> tuple[float, ...]:
    """The weight of each class, samples / (classes x samples of the class), as scikit-learn's "balanced" has it.

    labels: int64 (n,), -1 for none. ValueError for a class that no sample has.
    """
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    if (missing := np.flatnonzero(counts == 0)).size:
        raise ValueError(f"{missing.size} of {classes} classes have no sample, so no weight balances them: {missing}")
    return tuple(float(n) for n in np.round(counts.sum() / (classes * counts), 6))
