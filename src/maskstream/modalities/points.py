"""Clouds of points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..modality import Modality
from ..pipelines.modalities.points.loader import points_loader
from ..pipelines.modalities.points.read import PointSelection
from ..pipelines.modalities.points.tokens import VoxelTokens
from ..preprocess.encode.points.encoder import PointEncoder
from ..trial import MaskArgument, Trial, given, option


@dataclass(frozen=True, kw_only=True, slots=True)
class PointsTrial(Trial):
    """Clouds, and the voxels that are their tokens."""

    masks: ClassVar[tuple[MaskArgument, ...]] = (
        MaskArgument(default="fastdit-3d", grid=VoxelTokens().grid, cues=frozenset({"occupied"})),
    )

    points: int | None = option("Points of a cloud", default=PointSelection().points, least=1, panel="Points")
    resolution: int | None = option(
        "Voxels along an edge, a multiple of 4", default=VoxelTokens().resolution, least=4, multiple=4, panel="Points"
    )

    def chosen(self) -> dict[str, Any]:
        """Which points, and their tokens."""
        return {
            "select": PointSelection(**given(points=self.points)),
            "tokens": VoxelTokens(**given(resolution=self.resolution)),
        }


POINTS = Modality(
    name="points",
    unit="cloud",
    units="clouds",
    kinds=("points",),
    encoder=PointEncoder,
    loader=points_loader,
    trial=PointsTrial,
    stages={
        "convert": ("Augmenting", "more cores would help; noise, where there is some, is drawn here too"),
        "mask": ("Drawing masks", "one that need not know which voxels are occupied, such as random, costs less"),
    },
)
