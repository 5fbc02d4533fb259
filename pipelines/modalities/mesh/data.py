"""What decides a batch of meshes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Unpack

from ...masks import Mask, TokenGrid
from ...stream.loader import Loader
from ..data import DataConfig, check_views
from ..split import Options, Split
from .batch import MeshBatch
from .noise import MeshNoise
from .statistics import MeshStatistics

if TYPE_CHECKING:
    from .loader import MeshSource


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshData(DataConfig[MeshBatch]):
    """Masked graphs; the fields are the settings of `mesh_loader`."""

    modality: ClassVar[str] = "mesh"

    mask: Mask | None = None
    noise: MeshNoise | None = None
    statistics: MeshStatistics | None = None
    views: int = 1

    def __post_init__(self) -> None:
        check_views(self.views)

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """None: every mesh has a grid of its own, its nodes."""
        return {}

    def source(self, split: Split) -> MeshSource:
        """The graphs of a split, for a loader or a mixture."""
        from .loader import mesh_sampler, mesh_source

        sampler = mesh_sampler(
            split,
            mask=self.mask,
            noise=self.noise,
            statistics=self.statistics,
            views=self.views,
        )
        return mesh_source(split, sampler)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[MeshBatch]:
        """A loader of the graphs of a split."""
        from .loader import mesh_loader

        return mesh_loader(
            location, mask=self.mask, noise=self.noise, statistics=self.statistics, views=self.views, **options
        )
