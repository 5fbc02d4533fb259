"""The loader of masked meshes."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from ....shards.media.mesh_members import FIELDS
from ...masks import Mask
from ...stream.build import Build, LoaderOptions
from ...stream.loader import Loader
from .batch import MeshBatch
from .noise import MeshNoise
from .sample import MeshSampler
from .statistics import MeshStatistics, statistics_of


class MeshLoader(Loader[MeshBatch]):
    """A `Loader` of MeshBatch: `statistics` is what its fields are normalised by."""

    statistics: MeshStatistics


def mesh_loader(
    location: str | Path,
    *,
    mask: Mask | None = None,
    noise: MeshNoise | None = None,
    statistics: MeshStatistics | None = None,
    views: int = 1,
    **options: Unpack[LoaderOptions],
) -> MeshLoader:
    """A loader of graphs from a folder of shards of meshes (one split, such as `data/shards/cylinder-flow/train`).

    Of a simulation a view is one step and the one after it, of a surface its vertices with their normals. mask: a
    pattern of `maskstream.pipelines.masks` on the axis node, or None. noise: on the fields of simulations. statistics:
    what fields and edges are normalised by; by default those of the split `train` beside this one, or this one's.
    views: a mesh is read once and gives so many views, each with a step, noise and a mask of its own; a batch has
    batch_size * views. With shuffle=False the steps are not drawn, but lie evenly in the trajectory. options:
    batch_size, seed, shuffle, workers and what else all loaders take (`build.LoaderOptions`).

    Errors: ValueError for settings, ShardError where the location holds no finished split of meshes.
    """
    if views < 1:
        raise ValueError(f"views={views}: it must be 1 or more")
    build = Build.of(location, "mesh", options)
    if noise is not None and FIELDS not in build.manifest.components:
        raise ValueError(f"{noise} is for simulations, and {location} holds surfaces; give noise=None")
    sampler = MeshSampler(
        manifest=build.manifest,
        statistics=statistics or statistics_of(Path(location), build.manifest.info),
        mask=mask,
        noise=noise,
        seed=build.seed,
        views=views,
        drawn_steps=build.shuffle,
    )
    loader = build.loader(MeshLoader, sampler)
    loader.statistics = sampler.statistics
    return loader
