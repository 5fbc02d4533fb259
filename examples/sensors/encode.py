"""The dataset of a folder of recordings, `SPLIT/CLASS/NAME.csv`, and their encoder: an array (time, sensor) each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.encoder import Encoded
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards import array_member
from maskstream.shards.config import Config


@dataclass(frozen=True, kw_only=True, slots=True)
class SensorEncoder(Config):
    """Encodes a table of numbers, a line for each time and a column for each sensor. least: the fewest lines."""

    modality: ClassVar[str] = "sensors"
    least: int = 64

    @property
    def profile(self) -> str:
        """The only profile: sensors."""
        return "sensors"

    def encode(self, source: Source) -> Encoded:
        """The member `sensors.npy`, float32 (T, C)."""
        try:
            values = np.loadtxt(source.path, dtype=np.float32, delimiter=",", ndmin=2)
        except ValueError as error:
            raise RejectError("open", f"is no table of numbers: {error}") from error
        if len(values) < self.least or not np.isfinite(values).all():
            raise RejectError("check", f"has {len(values)} lines, of {self.least} or more, or a number is not finite")
        return Encoded(members={"sensors.npy": array_member(values)}, meta={"seconds": len(values) / 50})


def sensors(root: Path) -> Dataset:
    """The recordings below `root`."""
    paths = sorted(root.glob("*/*/*.csv"))
    labels = tuple(sorted({path.parent.name for path in paths}))
    splits: dict[str, list[Source]] = {}
    for path in paths:
        one = Source(id=f"{path.parent.name}-{path.stem}", path=path, label=labels.index(path.parent.name))
        splits.setdefault(path.parent.parent.name, []).append(one)
    return Dataset(name="sensors", label_names=labels, splits=splits, encoder=SensorEncoder())
