"""What a recipe is: everything that decides a training run except its data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypedDict, Unpack

import torch
from torch import Tensor, nn

from ...pipelines.stream.loader import Loader
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
class Recipe(ABC):
    """A run's settings, of any modality. batch_size: samples per rank and step."""

    modality: ClassVar[str]

    name: str
    batch_size: int
    schedule: ScheduleConfig
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size is at least 1, got {self.batch_size}")

    @abstractmethod
    def build_model(self, *, seed: int = 0) -> nn.Module:
        """The model with its initial weights, on the CPU. Its `forward(*inputs(batch))` is the loss, a float32 scalar;
        its `metadata()` is what `load_model` rebuilds it from (see export.py).
        """

    @abstractmethod
    def build_loader(self, data: str | Path, **settings: Unpack[LoaderSettings]) -> Loader[Any]:
        """The recipe's batches from a split's folder; rank and world size are torch.distributed's."""

    @abstractmethod
    def inputs(self, batch: Any) -> tuple[Tensor, ...]:
        """What the model's forward takes of a batch."""

    def settings(self) -> dict[str, str]:
        """What a resumed run must share with the saved one; batch_size may change with the number of ranks."""
        return {f.name: repr(getattr(self, f.name)) for f in fields(self) if f.name != "batch_size"}
