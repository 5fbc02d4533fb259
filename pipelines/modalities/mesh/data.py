"""The data config of meshes, and the source that it makes of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self, Unpack

from ....shards.format.component import component_of
from ....shards.media.mesh_members import fields_of
from ...masks import Mask, TokenGrid
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..data import DataConfig, check_settings
from ..fields import Fields, FieldsDraft, FieldsRequest, with_fields
from ..split import Options, Split, split_of
from .batch import MeshBatch
from .noise import MeshNoise
from .sample import MeshDraft, MeshRequest, MeshSampler
from .statistics import MeshStatistics, statistics_of

MeshSource = Source[FieldsRequest[MeshRequest], FieldsDraft[MeshDraft], MeshBatch, MeshBatch]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshData(DataConfig[MeshBatch]):
    """The data config of masked meshes.

    A view of a simulation is a step and the next one; a view of a surface is its vertices with their normals. mask: a
    mask of `maskstream.pipelines.masks` on the axis node, or None. noise: noise on the fields of simulations, by
    default none. statistics: the normalisation of fields and edges; by default that of the split `train` in the same
    folder, else this split's own. views: the number of views per sample; they share the mesh and differ in step, noise
    and mask. With shuffle=False the steps are not drawn, but evenly spaced in the trajectory. component: the mesh to
    read, such as "left.npz", whose fields are `left.fields.npy`; None if a sample has only one. fields: other values of
    a sample for `batch.fields` (see fields.py); the fields of a simulation are in `batch.state`.
    """

    modality: ClassVar[str] = "mesh"

    mask: Mask | None = None
    noise: MeshNoise | None = None
    statistics: MeshStatistics | None = None
    views: int = 1
    component: str | None = None
    fields: Fields = ()

    def __post_init__(self) -> None:
        check_settings(self, self.views)

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """Empty, because the grid of each mesh is its nodes."""
        return {}

    def resolved(self, split: Split) -> Self:
        """The config with all defaults that depend on the split filled in; raises ValueError if that is impossible."""
        manifest = split.manifest
        component = component_of(manifest.components, ("mesh",), self.component).name
        if self.noise is not None and fields_of(component) not in manifest.components:
            raise ValueError(f"noise={self.noise} needs simulations, {manifest.location} holds surfaces; leave it out")
        return replace(self, statistics=self._statistics(split), component=component)

    def sampler(self, split: Split) -> MeshSampler:
        """The sampler of a split."""
        own = self.resolved(split)
        return MeshSampler(
            manifest=split.manifest,
            statistics=own._statistics(split),
            pattern=own.mask,
            noise=own.noise,
            seed=split.seed,
            views=own.views,
            drawn_steps=split.shuffle,
            component=own.component or "",
        )

    def source(self, split: Split) -> MeshSource:
        """The source of a split, for a loader or a mixture."""
        own = self.resolved(split)
        graphs = Source(
            sampler=own.sampler(split),
            finish=Unchanged(),
            samples=split.samples,
            identity={"data": own.to_dict(identity=True), **split.identity},
            form={"views": own.views, "mask": own.mask},
        )
        return with_fields(graphs, split.manifest, own.fields)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[MeshBatch]:
        """The loader of a split."""
        split, loading = split_of(location, self.modality, options, self.loader)
        return Loader(self.source(split), **loading)

    def _statistics(self, split: Split) -> MeshStatistics:
        return self.statistics or statistics_of(split.manifest.location, split.manifest.info)
