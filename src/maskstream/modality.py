"""What a modality is to the commands and pages: one frozen spec, of which every table is derived."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .pipelines.stream.loader import Loader
from .preprocess.datasets import Dataset
from .preprocess.encode.encoder import Encoder
from .train.recipes import Recipe
from .trial import Trial, trial_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Modality:
    """One modality. unit, units: what a sample and what samples are called.

    kinds: of the components that its samples hold. encoder: makes samples of raw files. loader: opens a split. trial:
    what `preview` and `bench` let one choose. stages: what its loader's stages do and what would make them cheaper,
    where that is not what all loaders say. datasets, recipes: by name. demo: the steps of `maskstream demo`.
    """

    name: str
    unit: str
    units: str
    kinds: tuple[str, ...]
    encoder: Callable[[], Encoder]
    loader: Callable[..., Loader[Any]]
    trial: type[Trial]
    stages: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    datasets: Mapping[str, Callable[[Path], Dataset]] = field(default_factory=dict)
    recipes: Mapping[str, Callable[[], Recipe]] = field(default_factory=dict)

    def settings(self, **chosen: Any) -> dict[str, Any]:
        """The arguments of the loader for options of the trial; ValueError for one that does not fit."""
        return trial_of(self.trial, self.name, chosen).settings(self.name)
