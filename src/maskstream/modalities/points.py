"""Clouds of points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..modality import Demo, Modality
from ..pages.figures.card import label_names
from ..pages.figures.points import PointsFigures
from ..pages.report.works.points import show_groups, show_voxels
from ..pipelines.modalities.data import DataConfig
from ..pipelines.modalities.points.data import PointsData
from ..pipelines.modalities.points.read import PointSelection
from ..pipelines.modalities.points.tokens import VoxelTokens
from ..preprocess.encode.points.encoder import PointEncoder
from ..shards.format.manifest import Manifest
from ..train.models import PointAutoencoderConfig, VoxelDiffusionConfig
from ..trial import MaskArgument, Trial, given, option


@dataclass(frozen=True, kw_only=True, slots=True)
class PointsTrial(Trial):
    """The options for point clouds, whose tokens are cubes of voxels."""

    masks: ClassVar[tuple[MaskArgument, ...]] = (
        MaskArgument(default="fastdit-3d", grid=VoxelTokens().grid, cues=frozenset({"occupied"})),
    )

    points: int | None = option("Points of a cloud", default=PointSelection().points, least=1, panel="Points")
    resolution: int | None = option(
        "Voxels along an edge, a multiple of 4", default=VoxelTokens().resolution, least=4, multiple=4, panel="Points"
    )

    def chosen(self) -> PointsData:
        """The data config of the chosen tokens."""
        return PointsData(
            select=PointSelection(**given(points=self.points)),
            tokens=VoxelTokens(**given(resolution=self.resolution)),
        )


def figures(data: DataConfig[Any], location: str | Path) -> PointsFigures:
    """The figures of point clouds."""
    if not isinstance(data, PointsData):
        raise ValueError(f"figures of point clouds need a PointsData, got {type(data).__name__}")
    manifest = Manifest.load(location)
    return PointsFigures(
        tokens=data.tokens, augment=data.augment, manifest=manifest, label_names=label_names(manifest.info)
    )


POINTS = Modality(
    name="points",
    unit="cloud",
    units="clouds",
    kinds=("points",),
    encoder=PointEncoder,
    trial=PointsTrial,
    figures=figures,
    works={PointAutoencoderConfig: show_groups, VoxelDiffusionConfig: show_voxels},
    demo=Demo(recipe="pointmae-tiny"),
    stages={
        "convert": ("Augmenting", "more cores would help; noise, where there is some, is drawn here too"),
        "mask": ("Drawing masks", "a mask that does not depend on the occupied voxels, such as random, costs less"),
    },
)
