"""One mesh on its way to a batch: draw the step, read its bytes, build the graph, add noise, mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ....shards.errors import SampleError, ShardError, StoreError
from ....shards.format.manifest import Manifest
from ....shards.media.mesh_members import FIELDS, MESH, read_mesh, step_span, steps_of
from ...masks import Cues, Draw, Mask, TokenGrid
from ...masks.core.batch import MaskBatch
from ...stream.place import START, Place
from ...stream.rng import sample_rng
from ...stream.stats import Stats
from .batch import MeshBatch
from .collate import MeshView, mesh_batch
from .graph import Graph, build_graph, surface_normals
from .noise import MeshNoise
from .statistics import MeshStatistics

FREE = (0, 5)
"""Node types whose fields are not given: normal and outflow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredMesh:
    """A mesh as it is stored: positions float32 (V, d), cells int32 (C, k), kinds int64 (V,)."""

    positions: npt.NDArray[np.float32]
    cells: npt.NDArray[np.int32]
    kinds: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshSample:
    """The views of one sample."""

    views: list[MeshView]
    label: int
    key: str
    stats: Stats


@dataclass(frozen=True, kw_only=True)
class MeshSampler:
    """Makes samples of one dataset; holds settings only, so that it can be sent to worker processes.

    Every random choice is a function of (seed, epoch, key, view). A view of a simulation is a step of its own: drawn,
    or with `drawn_steps` False those that cut the trajectory into equal parts.
    """

    manifest: Manifest
    statistics: MeshStatistics
    mask: Mask | None
    noise: MeshNoise | None
    seed: int
    views: int
    drawn_steps: bool

    @property
    def needs_progress(self) -> bool:
        """Whether its mask changes over the run."""
        return self.mask is not None and self.mask.needs_progress

    def make(self, index: int, epoch: int, place: Place = START) -> MeshSample:
        """Sample `index` as the epoch shows it at its place in the run; SampleError where it cannot be used."""
        stats = Stats(samples=1)
        key = self.manifest.key(index)
        with stats.stage("read"):
            mesh = self.mesh(index)
            steps = self._steps(index, epoch, key)
            pairs = [self._normalised(index, mesh, step) for step in steps]
        stats.read_bytes = self.manifest.member(index, MESH).size + sum(pair.nbytes for pair in pairs)
        with stats.stage("convert"):
            graph = build_graph(mesh.positions, mesh.cells, self.statistics.edge_length)
        with stats.stage("mask"):
            masks = [self._mask(mesh, graph, epoch, key, view, place) for view in range(self.views)]
        views = [
            MeshView(
                positions=mesh.positions,
                kinds=mesh.kinds,
                graph=graph,
                state=self._noised(pair[0], mesh.kinds, sample_rng(self.seed, epoch, key, view, "noise")),
                next_state=pair[1] if len(pair) > 1 else None,
                counts=np.isin(mesh.kinds, FREE).astype(np.float32),
                mask=masks[view],
                step=steps[view],
            )
            for view, pair in enumerate(pairs)
        ]
        return MeshSample(views=views, label=int(self.manifest.label[index]), key=key, stats=stats)

    def mesh(self, index: int) -> StoredMesh:
        """The mesh of sample `index`; SampleError where it cannot be read."""
        member = self.manifest.member(index, MESH)
        try:
            arrays = read_mesh(self.manifest.store.read(*member))
            if "faces" in arrays:
                kinds = np.zeros(len(arrays["vertices"]), dtype=np.int64)
                return StoredMesh(positions=arrays["vertices"], cells=arrays["faces"], kinds=kinds)
            kinds = arrays["node_type"].astype(np.int64)
            return StoredMesh(positions=arrays["positions"], cells=arrays["cells"], kinds=kinds)
        except (StoreError, ShardError, KeyError) as error:
            raise self._error(index, MESH, f"{error}") from error

    def fields(self, index: int, first: int, count: int) -> npt.NDArray[np.float32]:
        """The steps [first, first + count) of simulation `index` as stored, float32 (count, V, D); no other step is
        read. SampleError where they cannot be.
        """
        stored = self.manifest.components[FIELDS]
        _, n_nodes, channels = stored.lists["shape"][index].tolist()
        try:
            name, offset, _ = self.manifest.member(index, FIELDS)
            begin, length = step_span(first, count, n_nodes, channels)
            begin += int(stored.facts["data_offset"][index])
            steps = steps_of(self.manifest.store.read(name, offset + begin, length), n_nodes, channels)
        except (StoreError, ShardError) as error:
            raise self._error(index, FIELDS, str(error)) from error
        if not np.isfinite(steps).all():
            raise self._error(index, FIELDS, f"steps {first} to {first + count - 1} are not finite")
        return steps

    def n_steps(self, index: int) -> int:
        """The steps of sample `index`, 0 for a surface."""
        stored = self.manifest.components.get(FIELDS)
        return int(stored.lists["shape"][index][0]) if stored is not None and stored.offset[index] else 0

    def _steps(self, index: int, epoch: int, key: str) -> list[int]:
        """The step of each view; it has a next one."""
        pairs = max(self.n_steps(index) - 1, 1)
        if not self.drawn_steps:
            return [(2 * view + 1) * pairs // (2 * self.views) for view in range(self.views)]
        return [int(sample_rng(self.seed, epoch, key, v, "step").integers(pairs)) for v in range(self.views)]

    def _normalised(self, index: int, mesh: StoredMesh, step: int) -> npt.NDArray[np.float32]:
        """Step `step` and the one after it, float32 (2, V, D); of a surface its normals, (1, V, 3)."""
        if not self.n_steps(index):
            return surface_normals(mesh.positions, mesh.cells)[None]
        return self.statistics.normalised(self.fields(index, step, 2))

    def _noised(
        self, values: npt.NDArray[np.float32], kinds: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        return values if self.noise is None else self.noise.added(values, kinds, rng)

    def _mask(self, mesh: StoredMesh, graph: Graph, epoch: int, key: str, view: int, place: Place) -> MaskBatch | None:
        if self.mask is None:
            return None
        cues = Cues(edges=graph.sides, kinds=mesh.kinds)
        n_nodes = len(mesh.positions)
        grid = TokenGrid(axes=("node",), shape=(n_nodes,), patch=(1,))
        return self.mask.draw(grid, [Draw.of(self.seed, epoch, key, view, place, cues)])

    def _error(self, index: int, component: str, reason: str) -> SampleError:
        shard = self.manifest.shard_path(index).name
        return SampleError(shard=shard, key=self.manifest.key(index), component=component, reason=reason)

    def collate(self, samples: list[MeshSample]) -> MeshBatch:
        """Samples to a batch, the views of a sample one after the other."""
        return mesh_batch(
            [view for sample in samples for view in sample.views],
            label=[sample.label for sample in samples for _ in sample.views],
            key=[sample.key for sample in samples for _ in sample.views],
            change=self.statistics.relative_change,
        )
