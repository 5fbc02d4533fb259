"""What decides a batch of meshes, and the source that it makes of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self, Unpack

from ....shards.format.manifest import component_of
from ....shards.media.mesh_members import fields_of
from ...masks import Mask, TokenGrid
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..data import DataConfig, check_views
from ..fields import Fields, FieldsDraft, FieldsRequest, with_fields
from ..split import Options, Split, split_of
from .batch import MeshBatch
from .noise import MeshNoise
from .sample import MeshDraft, MeshRequest, MeshSampler
from .statistics import MeshStatistics, statistics_of

MeshSource = Source[FieldsRequest[MeshRequest], FieldsDraft[MeshDraft], MeshBatch, MeshBatch]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshData(DataConfig[MeshBatch]):
    """Masked graphs.

    Of a simulation a view is one step and the one after it, of a surface its vertices with their normals. mask: a
    pattern of `maskstream.pipelines.masks` on the axis node, or None. noise: on the fields of simulations. statistics:
    what fields and edges are normalised by; by default those of the split `train` beside this one, or this one's.
    views: a mesh is read once and gives so many views, each with a step, noise and a mask of its own; a batch has
    batch_size * views. With shuffle=False the steps are not drawn, but lie evenly in the trajectory. component: the
    mesh that is read where a sample has several (with its own fields, `left.fields.npy` of `left.npz`); by default the
    only one. fields: what else a sample holds, for `batch.fields` (see fields.py); those of a simulation are in
    `batch.state`.
    """

    modality: ClassVar[str] = "mesh"

    mask: Mask | None = None
    noise: MeshNoise | None = None
    statistics: MeshStatistics | None = None
    views: int = 1
    component: str | None = None
    fields: Fields = ()

    def __post_init__(self) -> None:
        check_views(self.views)

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """None: every mesh has a grid of its own, its nodes."""
        return {}

    def resolved(self, split: Split) -> Self:
        """The same with all chosen that is left to the split; ValueError where that cannot be."""
        manifest = split.manifest
        component = component_of(manifest.components, ("mesh",), self.component).name
        if self.noise is not None and fields_of(component) not in manifest.components:
            raise ValueError(f"{self.noise} is for simulations, and {manifest.folder} holds surfaces; give noise=None")
        return replace(self, statistics=self._statistics(split), component=component)

    def sampler(self, split: Split) -> MeshSampler:
        """What makes the graphs of a split."""
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
        """The graphs of a split, for a loader or a mixture."""
        own = self.resolved(split)
        graphs = Source(
            sampler=own.sampler(split),
            finish=Unchanged(),
            samples=split.samples,
            identity={"data": own.to_dict(identity=True), "dataset": split.manifest.fingerprint},
            form={"views": own.views, "mask": own.mask},
        )
        return with_fields(graphs, split.manifest, own.fields)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[MeshBatch]:
        """A loader of the graphs of a split."""
        split, loading = split_of(location, self.modality, options)
        return Loader(self.source(split), **loading)

    def _statistics(self, split: Split) -> MeshStatistics:
        return self.statistics or statistics_of(split.manifest.folder, split.manifest.info)
