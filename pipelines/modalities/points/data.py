"""What decides a batch of point clouds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Unpack

from ...augment.diffusion import Noise
from ...masks import Mask, TokenGrid
from ...stream.loader import Loader
from ..data import DataConfig, check_views
from ..split import Options, Split
from .augment import PointAugment
from .batch import PointsBatch
from .read import PointSelection
from .tokens import PointTokens, VoxelTokens

if TYPE_CHECKING:
    from .loader import PointsSource


@dataclass(frozen=True, kw_only=True, slots=True)
class PointsData(DataConfig[PointsBatch]):
    """Masked clouds; the fields are the settings of `points_loader`."""

    modality: ClassVar[str] = "points"

    select: PointSelection = field(default_factory=PointSelection)
    augment: PointAugment = field(default_factory=PointAugment)
    tokens: PointTokens = field(default_factory=VoxelTokens)
    mask: Mask | None = None
    noise: Noise | None = None
    views: int = 1
    component: str | None = None

    def __post_init__(self) -> None:
        check_views(self.views)

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """That of "points", as the tokens say."""
        return {"points": self.tokens.grid}

    def source(self, split: Split) -> PointsSource:
        """The clouds of a split, for a loader or a mixture."""
        from .loader import points_sampler, points_source

        sampler = points_sampler(
            split,
            select=self.select,
            augment=self.augment,
            tokens=self.tokens,
            mask=self.mask,
            noise=self.noise,
            views=self.views,
            component=self.component,
        )
        return points_source(split, sampler)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[PointsBatch]:
        """A loader of the clouds of a split."""
        from .loader import points_loader

        return points_loader(
            location,
            select=self.select,
            augment=self.augment,
            tokens=self.tokens,
            mask=self.mask,
            noise=self.noise,
            views=self.views,
            component=self.component,
            **options,
        )
