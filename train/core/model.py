"""What a model is: settings that build it on token grids, and a module that takes a batch and says what it costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from torch import nn

from ...pipelines.masks import TokenGrid
from ...pipelines.modalities.data import DataConfig
from ...pipelines.stream.sampler import BatchT
from ...shards.config import Config
from .losses import Losses
from .seeding import seeded

Grids = Mapping[str, TokenGrid]
"""The token grids of a batch, by the name of what is cut into tokens, such as "video" and "audio"."""


class Model(nn.Module, ABC, Generic[BatchT]):
    """A model of one kind of batch. `config` and `grids` are what it was built of, and rebuild it."""

    def __init__(self, config: ModelConfig[BatchT], grids: Grids) -> None:
        super().__init__()
        self.settings, self.grids = config, dict(grids)

    @abstractmethod
    def loss(self, batch: BatchT) -> Losses:
        """What the model says of a batch, by parts. ValueError where the batch lacks what it needs."""

    @abstractmethod
    def reconstructed(self, batch: BatchT) -> BatchT:
        """The batch with the model's predictions in place of what it did not see."""

    def forward(self, batch: BatchT) -> Losses:
        """The same as `loss`. A training step calls the module itself, which is where data-parallel wrappers hook."""
        return self.loss(batch)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig(Config, ABC, Generic[BatchT]):
    """A model's sizes. What data decides, such as how many tokens there are, comes with the grids."""

    @abstractmethod
    def make(self, grids: Grids) -> Model[BatchT]:
        """The model, with initial weights from torch's global generator; `build` is what everyone calls.

        ValueError where the sizes do not fit the grids.
        """

    @property
    def most_labels(self) -> int | None:
        """As many different labels a split may have; None where the model takes no labels."""
        return None

    def check(self, data: DataConfig[BatchT]) -> None:
        """ValueError where such data are not what the model is for."""

    def build(self, grids: Grids, *, seed: int = 0) -> Model[BatchT]:
        """The model on the CPU; `seed` alone decides its initial weights."""
        with seeded(seed):
            return self.make(grids)
