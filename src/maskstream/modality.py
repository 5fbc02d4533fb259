"""What a modality is to the commands and pages: one frozen spec, of which every table is derived."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .pages.figures.figures import Figures
from .pages.figures.work import ShowWork
from .pipelines.modalities.data import DataConfig
from .preprocess.encode.encoder import Encoder
from .shards.format.manifest import Manifest
from .train.core.model import ModelConfig
from .trial import Trial, trial_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """What `maskstream demo` trains and shows. more: further commands, with {data} for the folder of the sample shards
    and {run} for the run's.
    """

    recipe: str
    more: tuple[str, ...] = ()

    def commands(self, modality: str) -> list[list[str]]:
        """The words behind `maskstream` of each command."""
        name = "" if modality == "video" else f"-{modality}"
        data, run = f"data/shards/sample{name}", f"runs/demo{name}"
        lines = (
            f"shards sample{name} --root data/raw/sample{name} --out {{data}}",
            f"train {self.recipe} --data {{data}}/train --out {{run}}",
            "report {run} --data {data}/val --out {run}/report.html",
            *self.more,
        )
        return [line.format(data=data, run=run).split() for line in lines]


@dataclass(frozen=True, kw_only=True, slots=True)
class Modality:
    """One modality. unit, units: what a sample and what samples are called.

    kinds: of the components that its samples hold. encoder: makes samples of raw files. trial: what `preview` and
    `bench` let one choose of a data config. figures: those of batches of a data config, of the split in a folder.
    stages: what its loader's stages do and what would make them cheaper, where that is not what all loaders say.
    works: by the kind of model, what a report shows of its work. demo: what `maskstream demo` trains.
    """

    name: str
    unit: str
    units: str
    kinds: tuple[str, ...]
    encoder: Callable[[], Encoder]
    trial: type[Trial]
    figures: Callable[[DataConfig[Any], Path], Figures[Any]]
    works: Mapping[type[ModelConfig[Any]], ShowWork]
    demo: Demo
    stages: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def data(self, **chosen: Any) -> DataConfig[Any]:
        """The data config for options of the trial; ValueError for one that does not fit."""
        return trial_of(self.trial, self.name, chosen).data(self.name)

    def shown(self, location: str | Path, **chosen: Any) -> DataConfig[Any]:
        """The same, with what is worth seeing of the split in a folder where nothing was chosen."""
        trial = trial_of(self.trial, self.name, chosen)
        return trial.suited(Manifest.load(location), trial.data(self.name))
