"""A probe during training: k-NN and a linear layer on the model's features for a few samples.

The samples are decoded once, before the run, and stay in memory. One half is used for training and the other for
testing, so the split may be one that the run has never seen. The linear layer is fitted in closed form (ridge
regression of the classes, 0 or 1), which costs less than a step. For figures of a finished run use `maskstream probe`,
which reads more samples and chooses its penalty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.stream.batch import Batch
from maskstream.shards.format.manifest import Manifest
from maskstream.train.core.hook import Hook, StepEvent
from maskstream.train.core.model import Model
from maskstream.train.core.parallel import gathered_root

from .evaluation import accuracy
from .features import GivesFeatures, drop_augmentation, has_label_lists, knn_scores, yield_labelled_batches

SAMPLES, AT_ONCE = 512, 64
"""Number of measured samples, half of which are references, and number of samples in a batch."""
NEIGHBOURS, PENALTY = 10, 1e-2
"""Number of neighbours of k-NN, and penalty of the linear layer on standardised features, relative to the number of
training samples.
"""
KNN, LINEAR = "right classes by k-NN, online", "right classes by a linear layer, online"


@dataclass(frozen=True, kw_only=True)
class OnlineProbe(Hook):
    """Measures k-NN and a linear probe during a run.

    Attributes:
        batches: Batches of samples, with the labelled rows int64 (R,).
        labels: Labels of all labelled rows, int64 (n,).
        every: Steps between measurements.
    """

    batches: Sequence[tuple[Batch, Tensor]]
    labels: Tensor
    every: int

    @classmethod
    def of(cls, config: DataConfig[Any], train: Manifest, data: Manifest, *, every: int) -> Self:
        """Read the samples of a probe.

        Args:
            config: Data config of the recipe.
            train: Training split, whose statistics normalise spectrograms.
            data: Labelled split.
            every: Steps between measurements.

        Raises:
            ValueError: The split has fewer than 4 labelled samples, or lists of classes.
        """
        if has_label_lists(data):
            raise ValueError(
                f"the samples of {data} have lists of classes, but a probe during training needs one label each"
            )
        plain = drop_augmentation(config, train)
        found = [
            (batch, rows, labels)
            for batch, rows, labels in yield_labelled_batches(plain, data, size=AT_ONCE, samples=SAMPLES, several=False)
            if len(rows)
        ]
        count = sum(len(labels) for *_, labels in found)
        if count < 4:
            raise ValueError(
                f"{data} has {count} labelled samples, but a probe needs at least 4; pass a split with labels"
            )
        labels = torch.cat([labels for *_, labels in found])
        return cls(batches=[(batch, rows) for batch, rows, _ in found], labels=labels, every=every)

    timed = "probe"

    def is_due(self, event: StepEvent) -> bool:
        """Return whether to measure after this step: every `every` steps and after the last."""
        return event.step == event.run.steps or event.step % self.every == 0

    def after(self, event: StepEvent) -> None:
        """Add the current scores of the model."""
        model = event.run.model
        model.eval()
        with gathered_root(model), torch.no_grad():
            event.scores |= self.measure(model, event.run.device)
        model.train()

    def measure(self, model: Model[Any], device: torch.device) -> Mapping[str, float]:
        """Return the accuracy of both probes.

        Args:
            model: The model.
            device: Device of the model.

        Raises:
            ValueError: The model has no features.
        """
        if not isinstance(model, GivesFeatures):
            raise ValueError(f"{type(model).__name__} has no features, so it cannot be probed; leave out --probe")
        parts = [model.features(batch.to(device))[rows.to(device)].float().cpu() for batch, rows in self.batches]
        x = torch.cat(parts)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))  # samples may be sorted by class
        some, others = order[: len(x) // 2], order[len(x) // 2 :]
        known, asked, labels, true = x[some], x[others], self.labels[some], self.labels[others]
        has = F.one_hot(labels, int(self.labels.max()) + 1).float()
        mean, deviation = known.mean(dim=0), known.std(dim=0).clamp_min(1e-6)
        known, asked = ((one - mean) / deviation for one in (known, asked))
        return {
            KNN: accuracy(knn_scores(known, has, asked, NEIGHBOURS), true),
            LINEAR: accuracy(_score_ridge(known.double(), has.double(), asked.double()), true),
        }


def _score_ridge(known: Tensor, has: Tensor, asked: Tensor) -> Tensor:
    """Return the scores of each class by ridge regression, float64 (m, C), solved as n x n or D x D, whichever is
    smaller.
    """
    mean, (n, width) = has.mean(dim=0), known.shape
    gram = known @ known.T if n < width else known.T @ known
    gram = gram + PENALTY * n * torch.eye(len(gram), dtype=known.dtype)
    if n < width:
        weights: Tensor = known.T @ torch.linalg.solve(gram, has - mean)
    else:
        weights = torch.linalg.solve(gram, known.T @ (has - mean))
    return asked @ weights + mean
