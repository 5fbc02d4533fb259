"""The loader of masked meshes."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from ...masks import Mask
from ...stream.loader import Loader
from ..fields import Fields
from ..split import Options
from .batch import MeshBatch
from .data import MeshData
from .noise import MeshNoise
from .statistics import MeshStatistics


class MeshSettings(Options, total=False):
    """The fields of `MeshData`, whose defaults they have, and the options of all loaders."""

    mask: Mask | None
    noise: MeshNoise | None
    statistics: MeshStatistics | None
    views: int
    component: str | None
    fields: Fields


def mesh_loader(location: str | Path, **settings: Unpack[MeshSettings]) -> Loader[MeshBatch]:
    """A loader of graphs from a folder of shards of meshes (one split, such as `data/shards/cylinder-flow/train`).

    settings: the fields of `MeshData` (mask, noise, statistics, views, component, ...), and what all loaders take:
    batch_size, seed, shuffle, workers and the others of `Options`.

    Errors: ValueError for settings, ShardError where the location holds no finished split of meshes.
    """
    return MeshData.opened(location, settings)
