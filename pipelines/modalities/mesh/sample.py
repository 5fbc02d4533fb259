"""The mesh sampler: it draws steps, reads meshes and fields, builds graphs, and draws noise and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ....shards.errors import DataError
from ....shards.format.component import Numbers
from ....shards.format.manifest import Manifest
from ....shards.media.mesh_members import fields_of, read_mesh, step_span, steps_of
from ....shards.stores.base import Announcement, Range
from ...masks import Cues, Draw, Maps, Mask, TokenGrid
from ...masks.core.batch import MaskBatch
from ...stream.place import Place
from ...stream.rng import sample_rng
from ...stream.sampler import Wanted
from ...stream.stats import Stats
from .batch import MeshBatch
from .collate import MeshView, mesh_batch
from .graph import build_graph, surface_normals
from .noise import MeshNoise
from .statistics import MeshStatistics

FREE = (0, 5)
"""The node types whose fields are not prescribed: normal and outflow."""
_NODE_BYTES = 8
"""The bytes of a node in two dimensions, the fewest that a mesh has per node."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredMesh:
    """A mesh as stored: positions float32 (V, d), cells int32 (C, k), kinds (node types) int64 (V,)."""

    positions: npt.NDArray[np.float32]
    cells: npt.NDArray[np.int32]
    kinds: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshRequest:
    """The draws of a sample: the step of each view.

    n_nodes: the number of nodes in the manifest. mesh: the byte range of the mesh. pairs: per view, the byte range of
    its step and the next one; empty for surfaces.
    """

    index: int
    epoch: int
    place: Place
    key: str
    n_nodes: int
    steps: tuple[int, ...]
    mesh: Range
    pairs: tuple[Range, ...]

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The byte ranges of the mesh and of the steps."""
        return (self.mesh, *self.pairs)


@dataclass(kw_only=True, slots=True)
class MeshDraft:
    """The views of a batch, each with its own number of nodes. With k views per sample, row r is [r k, (r + 1) k).

    maps (masks), views: None until they are drawn and made. label, key: one per view.
    """

    maps: list[Maps | None]
    views: list[MeshView | None]
    label: list[int]
    key: list[str]


@dataclass(frozen=True, kw_only=True)
class MeshSampler:
    """Makes host batches of meshes. It holds only settings, so it can be sent to worker processes.

    Every random draw is a function of (seed, epoch, key, view). Each view of a simulation has its own step.
    drawn_steps: True draws it uniformly; False takes evenly spaced steps. component: the mesh to read.
    """

    manifest: Manifest
    statistics: MeshStatistics
    pattern: Mask | None
    noise: MeshNoise | None
    seed: int
    views: int
    drawn_steps: bool
    component: str

    @property
    def trajectory(self) -> str:
        """The component that holds the fields of the mesh; a surface has none."""
        return fields_of(self.component)

    @property
    def needs_progress(self) -> bool:
        """Whether the mask depends on the progress of the run."""
        return self.pattern is not None and self.pattern.needs_progress

    def request(self, wanted: Wanted) -> MeshRequest:
        """Draws the step of each view, and finds the byte ranges; raises SampleError if the sample has no mesh."""
        index, epoch, key = wanted.index, wanted.epoch, self.manifest.key(wanted.index)
        mesh = self.manifest.member(index, self.component)
        with self.manifest.reading(index, self.trajectory):
            steps = self._steps(index, epoch, key)
            pairs = tuple(self._range(index, step, 2) for step in steps) if self.n_steps(index) else ()
        return MeshRequest(
            index=index,
            epoch=epoch,
            place=wanted.place,
            key=key,
            n_nodes=self._n_nodes(index, mesh),
            steps=steps,
            mesh=mesh,
            pairs=pairs,
        )

    def announce(self, request: MeshRequest) -> Announcement:
        """Says that the ranges of a request will be read soon."""
        return self.manifest.store.announce(request.ranges)

    def allocate(self, requests: Sequence[object]) -> MeshDraft:
        """The draft of a batch of some requests."""
        n = len(requests) * self.views
        return MeshDraft(maps=[None] * n, views=[None] * n, label=[-1] * n, key=[""] * n)

    def mask(self, request: MeshRequest, draft: MeshDraft, row: int) -> None:
        """Draws the masks of a row if they need no content."""
        if self.pattern is not None and not self.pattern.needs:
            self._draw_maps(self.pattern, request, draft, row, Cues())

    def fill(self, request: MeshRequest, draft: MeshDraft, row: int, stats: Stats) -> None:
        """Reads a row, and makes its views and the masks that need content; raises SampleError if it is unusable."""
        with stats.stage("read"):
            mesh = self._mesh(request.index, request.mesh)
            pairs = self._pairs(request)
        stats.read_bytes += sum(each.size for each in request.ranges)
        with stats.stage("convert"), self.manifest.reading(request.index, self.component):
            if len(mesh.positions) != request.n_nodes:
                raise DataError(f"has {len(mesh.positions)} nodes, not {request.n_nodes} as the manifest says")
            graph = build_graph(mesh.positions, mesh.cells, self.statistics.edge_length)
            if pairs:
                with np.errstate(over="ignore"):
                    states = [self.statistics.normalised(pair) for pair in pairs]
            else:
                states = [surface_normals(mesh.positions, mesh.cells)[None]] * self.views
            if not all(np.isfinite(each).all() for each in (graph.features, *states)):
                raise DataError("has numbers that are too large for float32 when they are normalised")
        if self.pattern is not None and self.pattern.needs:
            with stats.stage("mask"):
                self._draw_maps(self.pattern, request, draft, row, Cues(edges=graph.sides, kinds=mesh.kinds))
        label = int(self.manifest.label[request.index])
        for view, (state, step) in enumerate(zip(states, request.steps, strict=True)):
            at = row * self.views + view
            rng = sample_rng(self.seed, request.epoch, request.key, view, "noise")
            draft.label[at], draft.key[at] = label, request.key
            draft.views[at] = MeshView(
                positions=mesh.positions,
                kinds=mesh.kinds,
                graph=graph,
                state=state[0] if self.noise is None else self.noise.added(state[0], mesh.kinds, rng),
                next_state=state[1] if len(state) > 1 else None,
                counts=np.isin(mesh.kinds, FREE).astype(np.float32),
                mask=self._mask_batch(draft.maps[at], request.n_nodes),
                step=step,
            )

    def join(self, draft: MeshDraft) -> MeshBatch:
        """The host batch; the views of a sample are consecutive rows."""
        return mesh_batch(
            [view for view in draft.views if view is not None],
            label=draft.label,
            key=draft.key,
            change=self.statistics.relative_change,
        )

    def mesh(self, index: int) -> StoredMesh:
        """Reads the mesh of sample `index`; raises SampleError if it cannot be read."""
        return self._mesh(index, self.manifest.member(index, self.component))

    def fields(self, index: int, first: int, count: int) -> npt.NDArray[np.float32]:
        """Reads the steps [first, first + count) of sample `index`: float32 (count, V, D), not normalised.

        Raises SampleError if they cannot be read, or are not finite.
        """
        with self.manifest.reading(index, self.trajectory):
            data = self.manifest.store.read(*self._range(index, first, count))
            return self._finite(index, first, data)

    def n_steps(self, index: int) -> int:
        """The number of steps of sample `index`; 0 for a surface. Raises SampleError if a simulation has too few."""
        stored = self.manifest.components.get(self.trajectory)
        if stored is None or not stored.offset[index]:
            return 0
        with self.manifest.reading(index, self.trajectory):
            steps = int(stored.lists["shape"][index][0])
            if steps < 2:
                raise DataError(f"has {steps} steps in the manifest; a step and the next one are read")
        return steps

    def _steps(self, index: int, epoch: int, key: str) -> tuple[int, ...]:
        """The step of each view; never the last step, which has no next one."""
        pairs = max(self.n_steps(index) - 1, 1)
        if not self.drawn_steps:
            return tuple((2 * view + 1) * pairs // (2 * self.views) for view in range(self.views))
        return tuple(int(sample_rng(self.seed, epoch, key, v, "step").integers(pairs)) for v in range(self.views))

    @property
    def _facts(self) -> dict[str, Numbers]:
        """The facts of the meshes in the manifest, by name."""
        return self.manifest.components[self.component].facts

    def _n_nodes(self, index: int, mesh: Range) -> int:
        """The number of nodes in the manifest; raises SampleError if the mesh has too few bytes for them."""
        with self.manifest.reading(index, self.component):
            n_nodes = int(self._facts["n_nodes"][index])
            if not 0 < _NODE_BYTES * n_nodes <= mesh.size:
                raise DataError(f"has {mesh.size} bytes, too few for the {n_nodes} nodes in the manifest")
        return n_nodes

    def _shape(self, index: int) -> tuple[int, int]:
        """The numbers of nodes and channels of the fields of sample `index`."""
        shape = self.manifest.components[self.trajectory].lists["shape"][index].tolist()
        channels, n_nodes = len(self.statistics.mean), int(self._facts["n_nodes"][index])
        if shape[1:] != [n_nodes, channels]:
            raise DataError(f"has the shape {shape} in the manifest, not (steps, {n_nodes}, {channels})")
        return n_nodes, channels

    def _range(self, index: int, first: int, count: int) -> Range:
        """The byte range of the steps [first, first + count) of sample `index`; raises DataError if they are none."""
        name, offset, whole = self.manifest.member(index, self.trajectory)
        begin, size = step_span(first, count, *self._shape(index))
        data_offset = int(self.manifest.components[self.trajectory].facts["data_offset"][index])
        steps = self.n_steps(index)
        if first < 0 or first + count > steps:
            raise DataError(f"has {steps} steps, so there are no steps {first} to {first + count - 1}")
        if data_offset < 0 or data_offset + begin + size > whole:
            raise DataError(f"has {whole} bytes, too few for the steps {first} to {first + count - 1} in the manifest")
        return Range(name, offset + data_offset + begin, size)

    def _mesh(self, index: int, place: Range) -> StoredMesh:
        """Reads the mesh of sample `index` from the range `place`; raises SampleError if it cannot be read."""
        with self.manifest.reading(index, self.component):
            positions, cells, *kinds = read_mesh(self.manifest.store.read(*place)).values()
            if not np.isfinite(positions).all():
                raise DataError("a coordinate is not finite")
            of_nodes = kinds[0].astype(np.int64) if kinds else np.zeros(len(positions), dtype=np.int64)
            return StoredMesh(positions=positions, cells=cells, kinds=of_nodes)

    def _pairs(self, request: MeshRequest) -> list[npt.NDArray[np.float32]]:
        """Reads the step of each view and the next one, float32 (2, V, D) each; empty for a surface.

        Raises SampleError if they cannot be read, or are not finite.
        """
        with self.manifest.reading(request.index, self.trajectory):
            found = self.manifest.store.read_many(request.pairs)
            pairs = zip(request.steps, found, strict=False)  # `found` is empty for a surface
            return [self._finite(request.index, step, data) for step, data in pairs]

    def _finite(self, index: int, first: int, data: bytes) -> npt.NDArray[np.float32]:
        """The steps from `first` on in `data`, float32 (count, V, D); raises DataError if they are not finite."""
        steps = steps_of(data, *self._shape(index))
        if not np.isfinite(steps).all():
            raise DataError(f"steps {first} to {first + len(steps) - 1} are not finite")
        return steps

    def _draw_maps(self, mask: Mask, request: MeshRequest, draft: MeshDraft, row: int, cues: Cues) -> None:
        """Draws the masks of a sample's views."""
        for view in range(self.views):
            draw = Draw.of(self.seed, request.epoch, request.key, view, request.place, cues)
            draft.maps[row * self.views + view] = mask.maps(_nodes(request.n_nodes), draw)

    def _mask_batch(self, maps: Maps | None, n_nodes: int) -> MaskBatch | None:
        """The mask of one view, whose nodes are numbered from 0."""
        return None if self.pattern is None or maps is None else self.pattern.batched(_nodes(n_nodes), [maps])


def _nodes(n: int) -> TokenGrid:
    """The token grid of n nodes."""
    return TokenGrid(axes=("node",), shape=(n,), patch=(1,))
