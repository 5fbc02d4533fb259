"""The spec of a modality for commands and pages: one frozen object from which all tables are derived."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .pages.figures.figures import Figures
from .pages.figures.work import ShowGenerated, ShowWork
from .pipelines.modalities.data import DataConfig
from .preprocess.encode.encoder import Encoder
from .shards.format.manifest import Manifest
from .train.core.model import ModelConfig
from .trial import Trial, trial_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """The recipe that `maskstream demo` trains, and further commands, in which {data} is the folder of the sample
    shards and {run} that of the run. unseen: whether the sample set has a split of sources that are not trained on.
    """

    recipe: str
    unseen: bool = False
    more: tuple[str, ...] = ()

    def commands(self, modality: str) -> list[list[str]]:
        """The arguments of each `maskstream` command."""
        name = "" if modality == "video" else f"-{modality}"
        data, run = f"data/shards/sample{name}", f"runs/demo{name}"
        lines = (
            f"shards sample{name} --root data/raw/sample{name} --out {{data}}",
            f"train {self.recipe} --data {{data}}/train --out {{run}}",
            "report {run} --data {data}/val --out {run}/report.html"
            + (" --unseen {data}/unseen" if self.unseen else ""),
            *self.more,
        )
        return [line.format(data=data, run=run).split() for line in lines]


@dataclass(frozen=True, kw_only=True, slots=True)
class Modality:
    """The spec of one modality. unit, units: the word for one sample and for several.

    kinds: the kinds of the components of a sample. encoder: makes samples from raw files. trial: the options of
    `preview` and `bench`. figures: makes the figures for a data config and the folder of a split. stages: descriptions
    of the loader's stages and advice on making them cheaper, instead of the general ones. works: by type of model
    config, the function that shows a model's work in a report. generates: by type, the one that shows what a model
    generates. demo: what `maskstream demo` runs, None for nothing.
    """

    name: str
    unit: str
    units: str
    kinds: tuple[str, ...]
    encoder: Callable[[], Encoder]
    trial: type[Trial]
    figures: Callable[[DataConfig[Any], str | Path], Figures[Any]]
    works: Mapping[type[ModelConfig[Any]], ShowWork]
    generates: Mapping[type[ModelConfig[Any]], ShowGenerated] = field(default_factory=dict)
    demo: Demo | None = None
    stages: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def data(self, **chosen: Any) -> DataConfig[Any]:
        """The data config for the chosen options of the trial. ValueError for one that does not fit."""
        return trial_of(self.trial, self.name, chosen).data(self.name)

    def shown(self, location: str | Path, **chosen: Any) -> DataConfig[Any]:
        """The same, with defaults for a page about the split in the folder `location`."""
        trial = trial_of(self.trial, self.name, chosen)
        return trial.suited(Manifest.load(location), trial.data(self.name))
