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
    """The fields of `MeshData`, with its defaults, and the options of all loaders."""

    mask: Mask | None
    noise: MeshNoise | None
    statistics: MeshStatistics | None
    views: int
    component: str | None
    fields: Fields


def mesh_loader(location: str | Path, **settings: Unpack[MeshSettings]) -> Loader[MeshBatch]:
    """The loader of masked meshes of the split in the folder `location`, such as `data/shards/cylinder-flow/train`.

    settings: the fields of `MeshData` (mask, noise, statistics, views, component, ...) and the options of all loaders
    (`Options`: batch_size, seed, shuffle, workers, ...). A batch has batch_size * views meshes.

    Errors: TypeError for an unknown setting, ValueError for an illegal value, ShardError if the folder holds no
    finished split of meshes.
    """
    return MeshData.opened(location, settings)
