"""The loader of masked meshes."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from ....shards.media.mesh_members import FIELDS
from ...masks import Mask
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..split import Options, Split, split_of
from .batch import MeshBatch
from .data import MeshData
from .noise import MeshNoise
from .sample import MeshDraft, MeshRequest, MeshSampler
from .statistics import MeshStatistics, statistics_of

MeshSource = Source[MeshRequest, MeshDraft, MeshBatch, MeshBatch]


def mesh_loader(
    location: str | Path,
    *,
    mask: Mask | None = None,
    noise: MeshNoise | None = None,
    statistics: MeshStatistics | None = None,
    views: int = 1,
    **options: Unpack[Options],
) -> Loader[MeshBatch]:
    """A loader of graphs from a folder of shards of meshes (one split, such as `data/shards/cylinder-flow/train`).

    Of a simulation a view is one step and the one after it, of a surface its vertices with their normals. mask: a
    pattern of `maskstream.pipelines.masks` on the axis node, or None. noise: on the fields of simulations. statistics:
    what fields and edges are normalised by; by default those of the split `train` beside this one, or this one's.
    views: a mesh is read once and gives so many views, each with a step, noise and a mask of its own; a batch has
    batch_size * views. With shuffle=False the steps are not drawn, but lie evenly in the trajectory. options:
    batch_size, seed, shuffle, workers and what else all loaders take (`Options`).

    Errors: ValueError for settings, ShardError where the location holds no finished split of meshes.
    """
    split, loading = split_of(location, "mesh", options)
    sampler = mesh_sampler(split, mask=mask, noise=noise, statistics=statistics, views=views)
    return Loader(mesh_source(split, sampler), **loading)


def mesh_sampler(
    split: Split,
    *,
    mask: Mask | None = None,
    noise: MeshNoise | None = None,
    statistics: MeshStatistics | None = None,
    views: int = 1,
) -> MeshSampler:
    """What makes graphs of a split; the settings are those of `mesh_loader`."""
    if views < 1:
        raise ValueError(f"views={views}: it must be 1 or more")
    manifest = split.manifest
    if noise is not None and FIELDS not in manifest.components:
        raise ValueError(f"{noise} is for simulations, and {manifest.folder} holds surfaces; give noise=None")
    return MeshSampler(
        manifest=manifest,
        statistics=statistics or statistics_of(manifest.folder, manifest.info),
        mask_of=mask,
        noise=noise,
        seed=split.seed,
        views=views,
        drawn_steps=split.shuffle,
    )


def chosen(sampler: MeshSampler) -> MeshData:
    """What decides the batches, with all that was left to choose chosen: what a resume compares."""
    return MeshData(mask=sampler.mask_of, noise=sampler.noise, statistics=sampler.statistics, views=sampler.views)


def mesh_source(split: Split, sampler: MeshSampler) -> MeshSource:
    """The graphs of a split as a source, which a loader or a mixture goes through."""
    return Source(
        sampler=sampler,
        finish=Unchanged(),
        samples=split.samples,
        identity={"data": chosen(sampler).to_dict(identity=True), "dataset": split.manifest.fingerprint},
        form={"views": sampler.views, "mask": sampler.mask_of},
    )
