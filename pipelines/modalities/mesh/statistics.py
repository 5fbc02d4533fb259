"""The statistics that normalise the fields and edges of a mesh dataset, from the sums in its dataset.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from maskstream.shards.config import Config
from maskstream.shards.errors import ShardError
from maskstream.shards.format.damage import parsing
from maskstream.shards.format.dataset import DATASET_JSON, is_split, read_dataset_json
from maskstream.shards.stores.url import beside

Float32s = npt.NDArray[np.float32]

_LEAST = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshStatistics(Config):
    """The statistics of a mesh dataset, in the data's units; the first three are empty for surfaces.

    mean, deviation: mean and standard deviation of each of the D channels, over all nodes and steps. change: the
    standard deviation of the change per step, over the nodes whose fields are free. edge_length: the mean edge length.
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
        """Fields, float32 (..., D), normalised to mean 0 and standard deviation 1."""
        mean, deviation = (np.asarray(each, dtype=np.float32) for each in (self.mean, self.deviation))
        values: Float32s = (fields - mean) / deviation
        return values

    @classmethod
    def of_sums(cls, sums: Mapping[str, Sequence[float]]) -> Self:
        """The statistics from the mesh encoder's `sums`; a constant channel gets the standard deviation 1.

        Raises ValueError if the sums are not those of a dataset.
        """
        count, length = sums["edges"]
        mean, deviation = _moments(sums.get("fields", (0.0,)))
        _, change = _moments(sums.get("changes", (0.0,)))
        if not (count > 0 < length) or len(mean) != len(change):
            raise ValueError(f"the sums of edges are {sums['edges']}, those of fields and changes {mean} and {change}")
        return cls(mean=mean, deviation=deviation, change=change, edge_length=length / count)


def statistics_of(location: str, info: Mapping[str, Any]) -> MeshStatistics:
    """The statistics of the split `train` beside the one at `location`, so that all splits are normalised alike.

    Without such a split of the same dataset they are the split's own; `info` is its dataset.json. Raises ShardError if
    dataset.json has no sums.
    """
    train = beside(location, "train")
    if is_split(train):
        other = read_dataset_json(train)
        info = other if other["dataset"] == info["dataset"] else info
    if "edges" not in info.get("sums", {}):
        raise ShardError(
            f"dataset.json of {location} has no sums to normalise by; write the shards again, or give "
            "statistics=MeshStatistics(...)"
        )
    with parsing(f"{location}/{DATASET_JSON}"):
        return MeshStatistics.of_sums(info["sums"])


def _moments(sums: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, from a count, the sums and the sums of squares."""
    count, values = sums[0], np.asarray(sums[1:]).reshape(2, -1)
    mean = values[0] / max(count, 1)
    deviation = np.sqrt(np.maximum(values[1] / max(count, 1) - mean**2, 0))
    deviation[deviation < _LEAST * np.maximum(np.abs(mean), _LEAST)] = 1
    return tuple(mean.tolist()), tuple(deviation.tolist())
