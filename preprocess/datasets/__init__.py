"""Raw datasets, one file each: a function that takes the folder of the raw data and returns a Dataset of sources.

The folder of each modality names its datasets in `DATASETS`. All such folders are found here, so a new modality changes
nothing in this file.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from ..source import Source
from .dataset import Dataset

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    name: make
    for folder in iter_modules(__path__)
    if folder.ispkg
    for name, make in import_module(f".{folder.name}", __name__).DATASETS.items()
}
"""Datasets of all modalities by name."""

__all__ = ["DATASETS", "Dataset", "Source"]
