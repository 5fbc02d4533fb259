"""The data config of point clouds, and the source that it makes of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self, Unpack

from ....shards.format.component import component_of
from ...augment.diffusion import Noise
from ...masks import Mask, TokenGrid
from ...masks.core.visible import visible_tokens
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..data import DataConfig, check_settings
from ..fields import Fields, FieldsDraft, FieldsRequest, with_fields
from ..split import Options, Split, split_of
from .augment import PointAugment
from .batch import PointsBatch
from .read import PointSelection
from .sample import PointDraft, PointRequest, PointSampler
from .tokens import PointTokens, VoxelTokens

PointsSource = Source[FieldsRequest[PointRequest], FieldsDraft[PointDraft], PointsBatch, PointsBatch]


@dataclass(frozen=True, kw_only=True, slots=True)
class PointsData(DataConfig[PointsBatch]):
    """The data config of masked point clouds.

    select: the points to read, by default 2,048 per cloud. augment: by default only scaling to the unit ball. tokens:
    the tokens of the mask, by default 8^3 cubes of 4^3 voxels. mask: a mask of `maskstream.pipelines.masks`, or None.
    noise: a noise schedule, for diffusion models; the loader then draws noise and a time for each view. views: the
    number of views per sample; they share the points and differ in augmentation, noise and mask. component: the point
    cloud to read, such as "points.npy"; None if a sample has only one. fields: other values of a sample for
    `batch.fields` (see fields.py).
    """

    modality: ClassVar[str] = "points"

    select: PointSelection = field(default_factory=PointSelection)
    augment: PointAugment = field(default_factory=PointAugment)
    tokens: PointTokens = field(default_factory=VoxelTokens)
    mask: Mask | None = None
    noise: Noise | None = None
    views: int = 1
    component: str | None = None
    fields: Fields = ()

    def __post_init__(self) -> None:
        check_settings(self, self.views)

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """The token grid of "points", which `tokens` defines."""
        return {"points": self.tokens.grid}

    def resolved(self, split: Split) -> Self:
        """The config with all defaults that depend on the split filled in; raises ValueError if that is impossible."""
        return replace(self, component=component_of(split.manifest.components, ("points",), self.component).name)

    def sampler(self, split: Split) -> PointSampler:
        """The sampler of a split."""
        own = self.resolved(split)
        return PointSampler(
            manifest=split.manifest,
            select=own.select,
            augment=own.augment,
            tokens=own.tokens,
            pattern=own.mask,
            noise=own.noise,
            seed=split.seed,
            views=own.views,
            component=own.component or "",
        )

    def source(self, split: Split) -> PointsSource:
        """The source of a split, for a loader or a mixture."""
        own = self.resolved(split)
        clouds = Source(
            sampler=self.sampler(split),
            finish=Unchanged(),
            samples=split.samples,
            identity={"data": own.to_dict(identity=True), **split.identity},
            visible=visible_tokens((own.mask, own.tokens.grid)),
            form={
                "points": own.select.points,
                "features": own.select.features,
                "tokens": own.tokens,
                "views": own.views,
                "mask": own.mask,
                "noise": own.noise,
            },
        )
        return with_fields(clouds, split.manifest, own.fields)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[PointsBatch]:
        """The loader of a split."""
        split, loading = split_of(location, self.modality, options, self.loader)
        return Loader(self.source(split), **loading)
