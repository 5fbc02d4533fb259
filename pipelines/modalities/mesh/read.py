"""Read the meshes of a split and their fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from maskstream.shards.arrays import Float32s, Int32s, Int64s
from maskstream.shards.config import Config
from maskstream.shards.errors import DataError, ShardError
from maskstream.shards.format.component import Numbers
from maskstream.shards.format.data_errors import parsing
from maskstream.shards.format.dataset import DATASET_JSON, read_description, store_beside
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.mesh_members import find_step_span, name_fields_component, read_mesh, read_steps
from maskstream.shards.stores.base import Range

_LEAST = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshStatistics(Config):
    """Statistics of a mesh dataset, in the data's units; the first three are empty for surfaces.

    Attributes:
        mean: Mean of each of the D channels, over all nodes and steps.
        deviation: Standard deviation of each channel.
        change: Standard deviation of the change per step, over nodes with free fields.
        edge_length: Mean edge length.
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
        """Normalise fields, float32 (..., D), to mean 0 and standard deviation 1."""
        mean, deviation = (np.asarray(each, dtype=np.float32) for each in (self.mean, self.deviation))
        values: Float32s = (fields - mean) / deviation
        return values

    @classmethod
    def of_sums(cls, sums: Mapping[str, Sequence[float]]) -> Self:
        """Compute the statistics from the mesh encoder's `sums`; a constant channel has standard deviation 1.

        Raises:
            ValueError: The sums are inconsistent.
        """
        count, length = sums["edges"]
        mean, deviation = _moments(sums.get("fields", (0.0,)))
        _, change = _moments(sums.get("changes", (0.0,)))
        if not (count > 0 < length) or len(mean) != len(change):
            raise ValueError(
                f"the edge sums are {sums['edges']}, and the means of fields and changes are {mean} and {change}"
            )
        return cls(mean=mean, deviation=deviation, change=change, edge_length=length / count)


def statistics_of(split: Manifest) -> MeshStatistics:
    """Return the statistics of the split `train` in the same folder, so that all splits are normalised equally.

    Without such a split of the same dataset, the split's own statistics are used.

    Raises:
        ShardError: dataset.json has no sums.
    """
    info = split.info
    if (train := store_beside(split.store, "train")) is not None:
        other = read_description(train)
        info = other if other["dataset"] == info["dataset"] else info
    if "edges" not in info.get("sums", {}):
        raise ShardError(
            f"dataset.json of {split} has no sums for normalisation; write the shards again, or pass "
            "statistics=MeshStatistics(...)"
        )
    with parsing(f"{split}/{DATASET_JSON}"):
        return MeshStatistics.of_sums(info["sums"])


def _moments(sums: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation of each channel from a count, the sums and the sums of squares."""
    count, values = sums[0], np.asarray(sums[1:]).reshape(2, -1)
    mean = values[0] / max(count, 1)
    deviation = np.sqrt(np.maximum(values[1] / max(count, 1) - mean**2, 0))
    deviation[deviation < _LEAST * np.maximum(np.abs(mean), _LEAST)] = 1
    return tuple(mean.tolist()), tuple(deviation.tolist())


_NODE_BYTES = 8
"""Bytes of a node in two dimensions, the minimum per node."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredMesh:
    """A mesh as stored: positions float32 (V, d), cells int32 (C, k), kinds (node types) int64 (V,)."""

    positions: Float32s
    cells: Int32s
    kinds: Int64s


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshReader:
    """Reads the meshes of the component `component` of a split, and the steps of their fields."""

    manifest: Manifest
    component: str
    statistics: MeshStatistics
    """Statistics of the dataset, for each channel of the fields."""

    @property
    def trajectory(self) -> str:
        """Component that contains the fields of the mesh; surfaces have none."""
        return name_fields_component(self.component)

    def n_nodes(self, index: int, mesh: Range) -> int:
        """Return the number of nodes in the manifest.

        Raises:
            SampleError: The mesh has too few bytes for them.
        """
        with self.manifest.reading(index, self.component):
            n_nodes = int(self._facts["n_nodes"][index])
            if not 0 < _NODE_BYTES * n_nodes <= mesh.size:
                raise DataError(f"has {mesh.size} bytes, too few for the {n_nodes} nodes in the manifest")
        return n_nodes

    def n_steps(self, index: int) -> int:
        """Return the number of steps of sample `index`; 0 for a surface.

        Raises:
            SampleError: A simulation has too few steps.
        """
        stored = self.manifest.components.get(self.trajectory)
        if stored is None or not stored.offset[index]:
            return 0
        with self.manifest.reading(index, self.trajectory):
            steps = int(stored.lists["shape"][index][0])
            if steps < 2:
                raise DataError(f"has {steps} steps in the manifest; a sample needs a step and the next one")
        return steps

    def mesh(self, index: int, place: Range | None = None) -> StoredMesh:
        """Read the mesh of sample `index`, located at `place`.

        Raises:
            SampleError: It cannot be read.
        """
        place = place or self.manifest.member(index, self.component)
        with self.manifest.reading(index, self.component):
            positions, cells, *kinds = read_mesh(self.manifest.store.read(*place)).values()
            if not np.isfinite(positions).all():
                raise DataError("a coordinate is not finite")
            of_nodes = kinds[0].astype(np.int64) if kinds else np.zeros(len(positions), dtype=np.int64)
            return StoredMesh(positions=positions, cells=cells, kinds=of_nodes)

    def fields(self, index: int, first: int, count: int) -> Float32s:
        """Read the steps [first, first + count) of sample `index`: float32 (count, V, D), not normalised.

        Raises:
            SampleError: They cannot be read, or are not finite.
        """
        with self.manifest.reading(index, self.trajectory):
            data = self.manifest.store.read(*self.find_step_range(index, first, count))
            return self._finite(index, first, data)

    def pairs(self, index: int, steps: Sequence[int], places: Sequence[Range]) -> list[Float32s]:
        """Read some steps and the next one of each, float32 (2, V, D), from `places`; empty for a surface.

        Raises:
            SampleError: They cannot be read, or are not finite.
        """
        with self.manifest.reading(index, self.trajectory):
            found = self.manifest.store.read_many(places)
            pairs = zip(steps, found, strict=False)  # `found` is empty for a surface
            return [self._finite(index, step, data) for step, data in pairs]

    def find_step_range(self, index: int, first: int, count: int) -> Range:
        """Return the byte range of the steps [first, first + count) of sample `index`.

        Raises:
            DataError: The steps do not exist.
        """
        name, offset, whole = self.manifest.member(index, self.trajectory)
        begin, size = find_step_span(first, count, *self._shape(index))
        data_offset = int(self.manifest.components[self.trajectory].facts["data_offset"][index])
        steps = self.n_steps(index)
        if first < 0 or first + count > steps:
            raise DataError(f"has {steps} steps, so steps {first} to {first + count - 1} do not exist")
        if data_offset < 0 or data_offset + begin + size > whole:
            raise DataError(f"has {whole} bytes, too few for steps {first} to {first + count - 1} in the manifest")
        return Range(name, offset + data_offset + begin, size)

    @property
    def _facts(self) -> dict[str, Numbers]:
        """Columns of the manifest for the meshes, by name."""
        return self.manifest.components[self.component].facts

    def _shape(self, index: int) -> tuple[int, int]:
        """Return the numbers of nodes and channels of the fields of sample `index`."""
        shape = self.manifest.components[self.trajectory].lists["shape"][index].tolist()
        channels, n_nodes = len(self.statistics.mean), int(self._facts["n_nodes"][index])
        if shape[1:] != [n_nodes, channels]:
            raise DataError(f"has the shape {shape} in the manifest, not (steps, {n_nodes}, {channels})")
        return n_nodes, channels

    def _finite(self, index: int, first: int, data: bytes) -> Float32s:
        """Parse the steps from `first` on in `data`, float32 (count, V, D).

        Raises:
            DataError: A value is not finite.
        """
        steps = read_steps(data, *self._shape(index))
        if not np.isfinite(steps).all():
            raise DataError(f"steps {first} to {first + len(steps) - 1} are not finite")
        return steps
