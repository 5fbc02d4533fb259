"""The interface of models: a config that builds a model for token grids, and a module that maps a batch to its loss.

A loss has named parts. The mean of a batch differs from the mean of its halves' means if the halves have different
weights. So each part keeps the weighted sum of its errors and the sum of the weights, and is divided last, by the
weight of the whole step: means are exact over ranks and micro-batches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, Generic, Protocol, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.masks import MaskBatch, TokenGrid
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.config import Config
from maskstream.shards.format.manifest import Manifest

from .dropout import DropoutConfig, set_dropout
from .process import seeded

LEAST = 1e-12
"""Smallest divisor, so that a mean with zero weight is 0."""


class TrainingBatch(Protocol):
    """The part of a batch that the trainer uses; the model uses the rest."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Self: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class LossPart:
    """One named part of a loss.

    Attributes:
        total: Weighted sum of the errors, a float32 scalar.
        weight: Sum of the weights, a float32 scalar.
        share: Factor of the part's mean in the loss.
        errors: Errors and their weights, two tensors of one shape (samples, ...); None if an error is not of a single
            sample.
    """

    total: Tensor
    weight: Tensor
    share: float = 1.0
    errors: tuple[Tensor, Tensor] | None = None

    def mean(self, weight: Tensor | None = None) -> Tensor:
        """Return the total divided by `weight`, by default the part's own weight; 0 if the weight is 0."""
        return self.total / (self.weight if weight is None else weight).clamp_min(LEAST)


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """The parts of a model's loss on one batch, by name."""

    parts: Mapping[str, LossPart]

    def loss(self, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the loss, a float32 scalar: the sum of each part's mean times its `share`.

        Args:
            weights: Weight of each part over the whole step, used instead of the part's own weight. The losses of all
                ranks or micro-batches then add up to the loss of the whole step.

        Raises:
            ValueError: The loss has no parts.
        """
        means = self.means(weights)
        whole: Tensor | None = None
        for name, part in self.parts.items():
            one = means[name] if part.share == 1 else part.share * means[name]
            whole = one if whole is None else whole + one
        if whole is None:
            raise ValueError("a loss needs at least one part, got none")
        return whole

    def means(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the mean of each part, before it is multiplied by the part's share."""
        return {name: part.mean(None if weights is None else weights[name]) for name, part in self.parts.items()}

    def of_samples(self, samples: int, at: Tensor | None = None) -> Tensor:
        """Return the loss of each sample, float32 (samples,), without a graph.

        Parts that compare samples with each other are left out.

        Args:
            samples: Number of samples in the batch.
            at: Sample index of each error of a part, int64; None if the errors are ordered by sample.

        Raises:
            ValueError: No part is a sum over samples.
        """
        whole: Tensor | None = None
        count = samples if at is None else len(at)
        for part in self.parts.values():
            if part.errors is None or part.errors[0].shape[:1] != (count,):
                continue
            error, weight = (values.detach().reshape(count, -1) for values in part.errors)
            total, divisor = (error * weight).sum(1).float(), weight.sum(1).float()
            if at is not None:
                total, divisor = (sums.new_zeros(samples).index_add(0, at, sums) for sums in (total, divisor))
            one = part.share * total / divisor.clamp_min(LEAST)
            whole = one if whole is None else whole + one
        if whole is None:
            raise ValueError(
                f"no part of the loss ({', '.join(self.parts)}) is a sum over the {samples} samples of a batch, so "
                "their losses cannot be recorded; leave out losses=True (--losses)"
            )
        return whole

    def weights(self) -> Tensor:
        """Return the weights of all parts, float32 (parts,), in order."""
        return torch.stack([part.weight.detach().float() for part in self.parts.values()])


def weighted(error: Tensor, weight: Tensor, share: float = 1.0) -> LossPart:
    """Return a loss part of weighted errors.

    Args:
        error: Errors, one per token, node or sample.
        weight: Weights, of the same shape.
        share: Factor of the part in the loss.
    """
    return LossPart(total=(error * weight).sum(), weight=weight.sum(), share=share, errors=(error, weight))


def of_labels(scores: Tensor, label: Tensor) -> LossPart:
    """Return the cross-entropy of labels in nats.

    Args:
        scores: Logits (B, C).
        label: Labels int64 (B,); samples with label -1 are ignored.
    """
    return weighted(F.cross_entropy(scores, label.clamp_min(0), reduction="none"), (label >= 0).float())


def squared(made: Tensor, wanted: Tensor, weight: Tensor, share: float = 1.0) -> LossPart:
    """Return the weighted mean squared error.

    Args:
        made: Predictions (..., values).
        wanted: Targets (..., values).
        weight: Weights (...).
        share: Factor of the part in the loss.
    """
    return weighted(_compute_mean_square(widen(made) - widen(wanted)), weight, share)


def _compute_mean_square(x: Tensor) -> Tensor:
    """Return the mean square over the last axis. A compiler fuses the squares and their mean automatically."""
    if torch.compiler.is_compiling():
        return x.square().mean(dim=-1)
    return cast(Tensor, _MeanSquare.apply(x))  # type: ignore[no-untyped-call]


class _MeanSquare(torch.autograd.Function):
    """Compute the mean square over the last axis without a tensor of squares, in half the time of mse_loss and a
    mean.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return cast(Tensor, torch.linalg.vector_norm(x, dim=-1).square() / x.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return cast(Tensor, x * (gradients[0] * (2 / x.shape[-1])).unsqueeze(-1))


def widen(x: Tensor) -> Tensor:
    """Return x in float32, or unchanged if it is float64, since errors are never summed in half precision."""
    return x if x.dtype == torch.float64 else x.float()


Grids = Mapping[str, TokenGrid]
"""Token grids of a batch, by the name of the tokenised data, such as "video" and "audio"."""


def need_mask(mask: MaskBatch | None) -> MaskBatch:
    """Return the masks of a batch; raise ValueError if it has none."""
    if mask is None:
        raise ValueError("the batch has no masks, but the model needs them; pass mask= to the loader")
    return mask


class Model(nn.Module, ABC, Generic[BatchT]):
    """A model for one kind of batch, which can be rebuilt from its config and `grids`.

    Pass the class of its config in the class statement: `class Mine(Model[VideoBatch], config=MineConfig)`.

    Attributes:
        whole_graph: Whether the compiled part of a training step on a CUDA device is one graph, so that no size or
            branch depends on values.
        float32_on_cpu: Whether the model is computed in float32 on a CPU, whatever the precision setting.
    """

    whole_graph: bool = False
    float32_on_cpu: bool = False
    encoder_parts: ClassVar[tuple[str, ...]] = ()
    """Names of the modules and parameters that compute its features; empty if they cannot be extracted."""

    def __init_subclass__(cls, *, config: type[ModelConfig[Any]] | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if config is not None:
            config.model_class = cls

    def __init__(self, config: ModelConfig[BatchT], grids: Grids) -> None:
        super().__init__()
        self.settings, self.grids = config, dict(grids)

    @abstractmethod
    def loss(self, batch: BatchT) -> Losses:
        """Return the loss on a batch, in named parts.

        Raises:
            ValueError: The batch lacks a field that the model needs.
        """

    @property
    def feature_width(self) -> int:
        """The D of its features."""
        return int(cast(Any, self.settings).width)

    def reconstructed(self, batch: BatchT) -> BatchT:
        """Return the batch with hidden parts replaced by predictions; unchanged if nothing is hidden."""
        return batch

    def rename_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the weights of a file under this model's names.

        A model that also exists elsewhere, such as in transformers, renames its weights; all other names are unchanged.

        Args:
            weights: Tensors by name.

        Raises:
            ValueError: The weights would have another meaning in this model.
        """
        return weights

    def unused(self, data: DataConfig[BatchT]) -> Iterable[nn.Parameter]:
        """Return the parameters that receive no gradient from this data, such as heads for masks that the data lacks.

        They are not trained, because DistributedDataParallel waits for the gradients of all trained parameters.

        Args:
            data: Config of the run's data.
        """
        return ()

    def follow(self, step: int, steps: int) -> None:
        """Update modules that follow the weights, such as a teacher; by default nothing.

        It is not called for skipped steps.

        Args:
            step: Number of the finished step, from 0.
            steps: Number of steps of the run.
        """

    def forward(self, batch: BatchT) -> Losses:
        """Return the same result as `loss`. Training steps call the module, so that DistributedDataParallel
        synchronises gradients.
        """
        return self.loss(batch)


class TokenFeatures(Model[BatchT]):
    """A model that returns one feature vector per token; a sample's vector is their mean."""

    @abstractmethod
    def token_features(self, batch: BatchT) -> Tensor:
        """Return the encoder's output (B, N, D) for all tokens of a batch, none of them hidden."""

    def pool(self, tokens: Tensor) -> Tensor:
        """Pool token features (B, N, D) into sample features, float32 (B, D)."""
        return widen(tokens).mean(dim=1)

    def features(self, batch: BatchT) -> Tensor:
        """Return a feature vector for each sample of a batch, with no token hidden."""
        return self.pool(self.token_features(batch))


def import_models() -> None:
    """Import the classes of all models, so that saved configs can name them."""
    for module in ("recipes", "finetune_run"):
        import_module(f"maskstream.train.{module}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig(Config, ABC, Generic[BatchT]):
    """The sizes of a model. Sizes that depend on the data, such as the number of tokens, come from the grids.

    Attributes:
        model_class: Model class built from this config; set by that class.
        needs_labels: Whether the model learns only from labels.
        reads_cameras: Whether it reads clips from several cameras of a sample (`VideoBatch.cameras`).
        reads_targets: Whether it reads a frozen teacher's outputs (`batch.fields['targets']`).
        takes_sizes: Whether it accepts samples with fewer tokens than the grids, which occur while the sample size
            changes over the run.
        dropout: Dropout rates in training.
    """

    model_class: ClassVar[type[Model[Any]]]
    needs_labels: ClassVar[bool] = False
    reads_cameras: ClassVar[bool] = False
    reads_targets: ClassVar[bool] = False
    takes_sizes: ClassVar[bool] = False

    dropout: DropoutConfig = field(default_factory=DropoutConfig)

    def make(self, grids: Grids) -> Model[BatchT]:
        """Return the model, with initial weights from torch's global generator. Call `build`, which seeds it.

        Args:
            grids: Token grids of the data.

        Raises:
            ValueError: The sizes do not fit the grids.
        """
        return self.model_class(self, grids)

    @property
    def most_labels(self) -> int | None:
        """Number of different labels that the model supports; None if it uses no labels."""
        return None

    @property
    def most_ids(self) -> int | None:
        """Number of token ids that the model supports, its field `vocabulary`; None if it reads none."""
        found = getattr(self, "vocabulary", None)
        return found if isinstance(found, int) else None

    def check(self, data: DataConfig[BatchT]) -> None:
        """Raise ValueError if the model cannot train on data of this config."""

    def check_split(self, split: Manifest) -> None:
        """Raise ValueError if the model cannot train on a split; called before its samples are read."""

    def build(self, grids: Grids, *, seed: int = 0) -> Model[BatchT]:
        """Build the model on the CPU.

        Args:
            grids: Token grids of the data.
            seed: Seed of the initial weights, which depend on nothing else.
        """
        with seeded(seed):
            model = self.make(grids)
        set_dropout(model, self.dropout)
        return model

    def need_heads(self, width: str = "width", heads: str = "heads", *, of: int = 1) -> None:
        """Check that a width is a multiple of the number of heads.

        Args:
            width: Name of the field of the width.
            heads: Name of the field of the number of heads.
            of: A number that must also divide the width.

        Raises:
            ValueError: The width is not a multiple of both.
        """
        channels, parts = getattr(self, width), getattr(self, heads)
        if channels % parts or channels % of:
            also = f"{of} and of " if of > 1 else ""
            raise ValueError(f"{width} must be a multiple of {also}{heads}, got {width}={channels}, {heads}={parts}")
