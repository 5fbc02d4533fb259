"""The interface of models: a config that builds a model on token grids, and a module that maps a batch to its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic

from torch import Tensor, nn

from maskstream.pipelines.masks import TokenGrid
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.config import Config

from .losses import Losses
from .process import seeded

Grids = Mapping[str, TokenGrid]
"""The token grids of a batch, by the name of the data that is tokenised, such as "video" and "audio"."""


class Model(nn.Module, ABC, Generic[BatchT]):
    """A model of one kind of batch. It can be rebuilt from its `config` and `grids`.

    whole_graph: whether a training step is one graph for torch.compile, in which no size or branch depends on values.
    """

    whole_graph: bool = False

    def __init__(self, config: ModelConfig[BatchT], grids: Grids) -> None:
        super().__init__()
        self.settings, self.grids = config, dict(grids)

    @abstractmethod
    def loss(self, batch: BatchT) -> Losses:
        """The loss on a batch, in named parts. ValueError if the batch lacks a field that the model needs."""

    @abstractmethod
    def reconstructed(self, batch: BatchT) -> BatchT:
        """The batch with the hidden parts replaced by the model's predictions."""

    def own_names(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights of a file by this model's names. Models that others also have rename theirs; the rest stay.

        ValueError for weights of others that would not mean the same here.
        """
        return weights

    def unused(self, data: DataConfig[BatchT]) -> Iterable[nn.Parameter]:
        """The parameters that no batch of these data gives a gradient, such as the heads of masks that they lack.

        They are not trained: DistributedDataParallel waits for the gradients of all others.
        """
        return ()

    def forward(self, batch: BatchT) -> Losses:
        """The same as `loss`. A training step calls the module, so that DistributedDataParallel synchronises."""
        return self.loss(batch)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig(Config, ABC, Generic[BatchT]):
    """The sizes of a model. Sizes that the data decide, such as the number of tokens, come with the grids."""

    @abstractmethod
    def make(self, grids: Grids) -> Model[BatchT]:
        """The model, with initial weights from torch's global generator. Call `build`, which seeds it.

        ValueError if the sizes do not fit the grids.
        """

    @property
    def most_labels(self) -> int | None:
        """The number of different labels that the model can take; None if it uses no labels."""
        return None

    @property
    def needs_labels(self) -> bool:
        """Whether labels are all that the model learns."""
        return False

    def check(self, data: DataConfig[BatchT]) -> None:
        """Raises ValueError if the model cannot train on data of this config."""

    def build(self, grids: Grids, *, seed: int = 0) -> Model[BatchT]:
        """The model on the CPU; `seed` alone decides its initial weights."""
        with seeded(seed):
            return self.make(grids)
