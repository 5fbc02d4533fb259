"""What a recipe is: everything that decides a training run except its data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypedDict, Unpack

import torch

from ...pipelines.stream.loader import Loader
from ...shards.config import NOT_IDENTITY, Config
from ..core.model import Grids, Model, ModelConfig
from ..core.optimiser import OptimiserConfig
from ..core.schedule import ScheduleConfig


class LoaderSettings(TypedDict, total=False):
    """What a run decides about a recipe's loader; see `pipelines.build.LoaderOptions`."""

    seed: int
    device: str | torch.device
    workers: int
    threads: int | None
    steps: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe(Config, ABC):
    """A run's settings, of any modality. batch_size: samples per rank and step."""

    modality: ClassVar[str]

    name: str = field(metadata=NOT_IDENTITY)
    batch_size: int = field(metadata=NOT_IDENTITY)
    schedule: ScheduleConfig
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size is at least 1, got {self.batch_size}")

    @property
    @abstractmethod
    def grids(self) -> Grids:
        """The token grids of the recipe's batches."""

    def build_model(self, *, seed: int = 0) -> Model[Any]:
        """The model with its initial weights, on the CPU."""
        config: ModelConfig[Any] = self.model  # type: ignore[attr-defined]
        return config.build(self.grids, seed=seed)

    @abstractmethod
    def build_loader(self, data: str | Path, **settings: Unpack[LoaderSettings]) -> Loader[Any]:
        """The recipe's batches from a split's folder; rank and world size are torch.distributed's."""
