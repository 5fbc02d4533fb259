"""What the fields of a mesh dataset are normalised by, made of the sums in its dataset.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ....shards.config import Config
from ....shards.errors import ShardError
from ....shards.format.dataset import DATASET_JSON, read_dataset_json

Float32s = npt.NDArray[np.float32]

_LEAST = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshStatistics(Config):
    """mean, deviation: of the D channels of a field over all nodes and steps. change: the deviation of the change from
    one step to the next at nodes that are free to change. All in the data's units; empty for surfaces. edge_length: the
    mean.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    change: tuple[float, ...]
    edge_length: float

    @property
    def relative_change(self) -> Float32s:
        """`change` in units of `deviation`, float32 (D,)."""
        return np.divide(self.change, self.deviation).astype(np.float32)

    def normalised(self, fields: Float32s) -> Float32s:
        """Fields float32 (..., D) with the mean 0 and the deviation 1."""
        mean, deviation = (np.asarray(each, dtype=np.float32) for each in (self.mean, self.deviation))
        values: Float32s = (fields - mean) / deviation
        return values

    @classmethod
    def of_sums(cls, sums: Mapping[str, Sequence[float]]) -> Self:
        """Of the `sums` that the mesh encoder makes. A channel that never changes has the deviation 1."""
        count, length = sums["edges"]
        mean, deviation = _moments(sums.get("fields", (0.0,)))
        _, change = _moments(sums.get("changes", (0.0,)))
        return cls(mean=mean, deviation=deviation, change=change, edge_length=length / count)


def statistics_of(folder: Path, info: Mapping[str, Any]) -> MeshStatistics:
    """Those of the split `train` beside `folder`, where there is one, so that all splits of a dataset are normalised
    alike, else the split's own (`info` is its dataset.json). ShardError where it has none.
    """
    train = folder.resolve().parent / "train"
    if (train / DATASET_JSON).is_file():
        other = read_dataset_json(train)
        info = other if other["dataset"] == info["dataset"] else info
    if "edges" not in info.get("sums", {}):
        raise ShardError(
            f"dataset.json of {folder} has no sums to normalise by; write the shards again, or give statistics="
        )
    return MeshStatistics.of_sums(info["sums"])


def _moments(sums: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel out of a count, sums and sums of squares."""
    count, values = sums[0], np.asarray(sums[1:]).reshape(2, -1)
    mean = values[0] / max(count, 1)
    deviation = np.sqrt(np.maximum(values[1] / max(count, 1) - mean**2, 0))
    deviation[deviation < _LEAST * np.maximum(np.abs(mean), _LEAST)] = 1
    return tuple(mean.tolist()), tuple(deviation.tolist())
