"""Data config of meshes, the rows of batches, and their loader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Annotated, Any, ClassVar, Self

import numpy as np

from maskstream.pipelines.masks import Cues, Mask, MaskBatch, TokenGrid
from maskstream.pipelines.modalities.data import SplitConfig, check_cues
from maskstream.pipelines.modalities.fields import Fields
from maskstream.pipelines.modalities.rows import BatchRows, Item, Items, Masked, Memory, RowMaker, Traits
from maskstream.pipelines.modalities.split import Options, Split, Splits
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.arrays import Float32s, Int64s
from maskstream.shards.config import Config
from maskstream.shards.errors import DataError
from maskstream.shards.format.component import component_of
from maskstream.shards.keywords import takes_fields
from maskstream.shards.limits import Bounds, PositiveInt
from maskstream.shards.media.mesh_members import name_fields_component
from maskstream.shards.stores.base import Range

from .batch import MeshBatch, MeshView, build_graph, build_mesh_batch, compute_surface_normals
from .read import MeshReader, MeshStatistics, statistics_of

KERNELS = ("maskstream.pipelines.modalities.mesh.kernels",)


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshNoise(Config):
    """Normal noise on the fields of nodes whose type is in `kinds`.

    The next state has no noise, so a model that predicts the change learns to remove it (gamma = 1). Source:
    MeshGraphNets (Pfaff et al., 2021, sections 3.2 and A.2.2).

    Attributes:
        deviation: Standard deviation of the noise relative to each channel's: noise of 0.02 on a velocity with standard
            deviation 0.5 is 0.04.
        kinds: Node types to which noise is added.
    """

    deviation: Annotated[float, Bounds(above=0, below=inf, note="(noise=None for no noise)")] = 0.04
    kinds: tuple[int, ...] = (0,)

    def added(self, fields: Float32s, kinds: Int64s, rng: np.random.Generator) -> Float32s:
        """Add noise to normalised fields, float32 (V, D); `kinds` is int64 (V,)."""
        noise = rng.standard_normal(fields.shape, dtype=np.float32) * np.float32(self.deviation)
        return np.where(np.isin(kinds, self.kinds)[:, None], fields + noise, fields)


FREE = (0, 5)
"""Node types whose fields are not prescribed: normal and outflow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshSettings:
    """Settings of masked meshes.

    Attributes:
        mask: Mask of `maskstream.pipelines.masks` on the axis node; by default none.
        noise: Noise on the fields of simulations; by default none.
        statistics: Normalisation of fields and edges; defaults to the statistics of the split `train` in the same
            folder, else of this split.
        views: Number of views per sample. They share the mesh and differ in step, noise and mask. Without
            shuffling the steps are spaced evenly over the trajectory.
        component: Name of the mesh to read, such as "left.npz", whose fields are `left.fields.npy`; required
            only if a sample has several.
        fields: Other values of a sample to return in `batch.fields` (see `maskstream.pipelines.modalities.fields`); the
            fields of a simulation are in `batch.state`.
    """

    mask: Mask | None = None
    noise: MeshNoise | None = None
    statistics: MeshStatistics | None = None
    views: PositiveInt = 1
    component: str | None = None
    fields: Fields = ()


@dataclass(frozen=True, kw_only=True)
class MeshOptions(Options, MeshSettings):
    """The options of `mesh_loader`."""


@takes_fields(MeshOptions)
def mesh_loader(location: Splits, options: MeshOptions) -> Loader[MeshBatch]:
    """Open the loader of masked meshes: batch_size * views meshes per batch and rank.

    Args:
        location: Location of a split, such as `data/shards/cylinder-flow/train`, or (location, weight) pairs of
            several, which are mixed as `mix` does.
        options: The fields of `MeshData` and the options of all loaders.

    Raises:
        TypeError: A parameter is unknown.
        ValueError: A value is not allowed.
        ShardError: The location is not a finished split of meshes.
    """
    return MeshData.open(location, options)


@dataclass(kw_only=True, slots=True)
class MeshPlan:
    """Steps of the views of a mesh."""

    n_nodes: int
    """Number of nodes in the manifest."""
    steps: tuple[int, ...]
    """Step of each view."""
    mesh: Range
    """Byte range of the mesh."""
    pairs: tuple[Range, ...]
    """Byte range of each view's step and the next one; empty for surfaces."""
    made: tuple[MeshView, ...] = ()
    """Views, once created."""

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Byte ranges of the mesh and of the steps."""
        return (self.mesh, *self.pairs)


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshData(MeshSettings, SplitConfig[MeshPlan, MeshBatch]):
    """Data config of masked meshes.

    A view of a simulation is a step and the next one; a view of a surface is its vertices with their normals.
    """

    modality: ClassVar[str] = "mesh"
    alike: ClassVar[tuple[str, ...]] = ()

    def validate(self) -> None:
        check_cues(self.mask, "meshes", frozenset({"edges", "kinds"}))

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """Empty, because each mesh has its own grid of nodes."""
        return {}

    def resolved(self, split: Split) -> Self:
        """Fill in all defaults that depend on the split.

        Raises:
            ValueError: A setting does not fit the split.
        """
        manifest = split.manifest
        component = component_of(manifest.components, ("mesh",), self.component).name
        if self.noise is not None and name_fields_component(component) not in manifest.components:
            raise ValueError(
                f"noise={self.noise} needs simulations, but {manifest.location} contains surfaces; leave it out"
            )
        return replace(self, statistics=self.statistics or statistics_of(manifest), component=component)

    def reader(self, split: Split) -> MeshReader:
        """Create the reader of a split's meshes."""
        own = self.resolved(split)
        statistics = own.statistics or statistics_of(split.manifest)
        return MeshReader(manifest=split.manifest, component=own.component or "", statistics=statistics)

    def rows(self, split: Split) -> MeshRowMaker:
        """Create the row maker of a split."""
        return MeshRowMaker(mask=self.mask, noise=self.noise, reader=self.reader(split), drawn_steps=split.shuffle)


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshRowMaker(RowMaker[MeshPlan, MeshBatch]):
    """Creates rows of meshes. Each view of a simulation has its own step."""

    mask: Mask | None
    noise: MeshNoise | None
    reader: MeshReader
    drawn_steps: bool
    """Draw steps uniformly instead of spacing them evenly."""

    @property
    def masks(self) -> tuple[Masked, ...]:
        """Mask of the nodes; `fill` draws it, because each mesh has its own grid of nodes."""
        return (Masked("mask", self.mask, _make_node_grid(1), by_sampler=False),)

    @property
    def traits(self) -> Traits:
        """Meshes differ in their number of tokens."""
        return Traits(counted=False)

    def plan(self, items: Items) -> list[MeshPlan]:
        """Draw the step of each view and find the byte ranges.

        Raises:
            SampleError: A sample has no mesh.
        """
        return [self._plan(item) for item in items]

    def _plan(self, item: Item) -> MeshPlan:
        reader, index = self.reader, item.index
        mesh = item.manifest.member(index, reader.component)
        with item.manifest.reading(index, reader.trajectory):
            n_steps = reader.n_steps(index)
            steps = self._steps(item, n_steps)
            pairs = tuple(reader.find_step_range(index, step, 2) for step in steps) if n_steps else ()
        return MeshPlan(n_nodes=reader.n_nodes(index, mesh), steps=steps, mesh=mesh, pairs=pairs)

    def layout(self, memory: Memory[MeshPlan]) -> MeshBatch:
        """Create a batch of keys and labels only: meshes differ in their number of nodes, so `join`
        creates the rest.
        """
        none = memory(np.float32, 0)
        return MeshBatch(
            positions=none,
            kinds=none,
            node_offset=none,
            edges=none,
            edge_features=none,
            edge_offset=none,
            state=none,
            next_state=None,
            change=none,
            counts=none,
            mask=None,
            visible_edges=None,
            kept_edges=None,
            step=none,
            key=memory.key,
            label=memory.label,
        )

    def fill(self, rows: BatchRows[MeshPlan], batch: MeshBatch, stats: Stats) -> None:
        """Read meshes and create their views and masks.

        Raises:
            SampleError: A mesh is unusable.
        """
        for item, plan, _ in rows:
            plan.made = self._made(item, plan, stats)

    def _made(self, item: Item, plan: MeshPlan, stats: Stats) -> tuple[MeshView, ...]:
        reader, index = self.reader, item.index
        with stats.stage("read"):
            mesh = reader.mesh(index, plan.mesh)
            pairs = reader.pairs(index, plan.steps, plan.pairs)
        stats.read_bytes += sum(each.size for each in plan.ranges)
        with stats.stage("convert"), item.manifest.reading(index, reader.component):
            if len(mesh.positions) != plan.n_nodes:
                raise DataError(f"has {len(mesh.positions)} nodes, not {plan.n_nodes} as the manifest says")
            graph = build_graph(mesh.positions, mesh.cells, reader.statistics.edge_length)
            if pairs:
                with np.errstate(over="ignore"):
                    states = [reader.statistics.normalised(pair) for pair in pairs]
            else:
                states = [compute_surface_normals(mesh.positions, mesh.cells)[None]] * item.views
            if not all(np.isfinite(each).all() for each in (graph.features, *states)):
                raise DataError("has values that overflow float32 when normalised")
        with stats.stage("mask"):
            cues = Cues(edges=graph.sides, kinds=mesh.kinds)
            masks = [self._mask(item, view, plan.n_nodes, cues) for view in range(item.views)]
        counts = np.isin(mesh.kinds, FREE).astype(np.float32)
        return tuple(
            MeshView(
                positions=mesh.positions,
                kinds=mesh.kinds,
                graph=graph,
                state=self._add_noise(item, view, state[0], mesh.kinds),
                next_state=state[1] if len(state) > 1 else None,
                counts=counts,
                mask=masks[view],
                step=plan.steps[view],
            )
            for view, state in enumerate(states)
        )

    def join(self, batch: MeshBatch, plans: Iterable[MeshPlan], made: Mapping[str, Any]) -> MeshBatch:
        """Combine all views into one graph."""
        views, change = [view for plan in plans for view in plan.made], self.reader.statistics.relative_change
        return replace(build_mesh_batch(views, label=batch.label.tolist(), key=batch.key, change=change), **made)

    def _steps(self, item: Item, n_steps: int) -> tuple[int, ...]:
        """Choose the step of each view; never the last one, which has no next step."""
        pairs = max(n_steps - 1, 1)
        if not self.drawn_steps:
            return tuple((2 * view + 1) * pairs // (2 * item.views) for view in range(item.views))
        return tuple(int(rng.integers(pairs)) for rng in item.rngs("step"))

    def _add_noise(self, item: Item, view: int, state: Float32s, kinds: Int64s) -> Float32s:
        """Add noise to the fields of a view, float32 (V, D)."""
        return state if self.noise is None else self.noise.added(state, kinds, item.rng("noise", view))

    def _mask(self, item: Item, view: int, n_nodes: int, cues: Cues) -> MaskBatch | None:
        """Draw the mask of one view, with nodes numbered from 0."""
        grid = _make_node_grid(n_nodes)
        return None if self.mask is None else self.mask.batched(grid, [self.mask.maps(grid, item.draw(view, cues))])


def _make_node_grid(n: int) -> TokenGrid:
    """Return the token grid of n nodes."""
    return TokenGrid(axes=("node",), shape=(n,), patch=(1,))
