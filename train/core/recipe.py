"""What a recipe is: everything that decides a training run, except which split it is trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Unpack

import numpy as np

from ...pipelines.modalities.data import DataConfig
from ...pipelines.modalities.split import Options
from ...pipelines.stream.loader import Loader
from ...pipelines.stream.sampler import BatchT
from ...pipelines.stream.token_budget import BudgetOrder
from ...shards.config import NOT_IDENTITY, Config
from ...shards.format.manifest import Manifest
from .model import Model, ModelConfig
from .optimiser import OptimiserConfig
from .schedule import ScheduleConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe(Config, Generic[BatchT]):
    """A run's settings, of any modality.

    batch_size: samples per rank and step. token_budget: visible tokens of a batch of all ranks, whose size then follows
    the mask's ratio (see `BudgetOrder`); batch_size is then the least number of samples per rank.
    """

    name: str = field(metadata=NOT_IDENTITY)
    batch_size: int = field(metadata=NOT_IDENTITY)
    data: DataConfig[BatchT]
    model: ModelConfig[BatchT]
    schedule: ScheduleConfig
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    token_budget: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size is at least 1, got {self.batch_size}")
        self.model.check(self.data)

    def build(self, *, seed: int = 0) -> Model[BatchT]:
        """The model on the CPU; `seed` alone decides its initial weights."""
        return self.model.build(self.data.grids, seed=seed)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[BatchT]:
        """The recipe's batches from a split's folder; ValueError where it has more labels than the model knows.

        With a token budget or a mask that changes over the run `steps` has to be given: see `run_length`.
        """
        most = self.model.most_labels
        if most is not None and (found := int(np.max(Manifest.load(location).label, initial=-1)) + 1) > most:
            raise ValueError(
                f"{location} has labels of {found} categories, and the model knows {most}; set model.categories={found}"
            )
        options.setdefault("batch_size", self.batch_size)
        options.setdefault("token_budget", self.token_budget)
        return self.data.loader(location, **options)

    def run_length(self, location: str | Path, *, world_size: int = 1) -> int:
        """The steps of a run on the split in a folder: the schedule's, or those that show every sample `epochs` times.

        With a token budget, where the size of a batch follows the run's progress, they are the fewest that do.
        """
        if self.schedule.steps is not None:
            return self.schedule.steps
        n_samples = len(Manifest.load(location))
        per_step = self.batch_size * world_size
        if self.token_budget is None:
            return self.schedule.run_length(n_samples // per_step)
        wanted = self.schedule.epochs * n_samples

        def shown(steps: int) -> int:
            """The samples of a run of so many steps."""
            loader = self.loader(location, steps=steps, device="cpu", rank=0, world_size=1, batch_size=per_step)
            if not isinstance(loader.order, BudgetOrder):
                raise ValueError(f"a token budget makes batches of changing size, got {loader.order}")
            return loader.order.samples_of_run()

        guess = max(round(wanted / shown(_REFERENCE) * _REFERENCE), 1)
        low, high = max(guess - guess // 50 - 2, 0), guess + guess // 50 + 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if shown(middle) >= wanted else (middle, high)
        return high


_REFERENCE = 1000
"""Steps of the run by whose batches the length of another is guessed."""
