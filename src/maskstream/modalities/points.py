"""Clouds of points."""

from typing import Any

from maskstream.modality import Demo, MaskField, Modality
from maskstream.pages.figures.card import label_names
from maskstream.pages.figures.points import PointsFigures
from maskstream.pipelines.masks import MASKS
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.points.data import PointsData
from maskstream.pipelines.modalities.points.tokens import VoxelTokens
from maskstream.preprocess.encode.points.encoder import PointEncoder
from maskstream.shards.format.manifest import Manifest


def figures(data: DataConfig[Any], manifest: Manifest) -> PointsFigures:
    """Return the figures of point clouds.

    Args:
        data: The data config.
        manifest: The split.
    """
    if not isinstance(data, PointsData):
        raise ValueError(f"point cloud figures need a PointsData, got {type(data).__name__}")
    return PointsFigures(
        tokens=data.tokens, augment=data.augment, manifest=manifest, label_names=label_names(manifest.info)
    )


POINTS = Modality(
    name="points",
    unit="cloud",
    units="clouds",
    kinds=("points",),
    encoder=PointEncoder,
    data=PointsData(mask=MASKS["fastdit-3d"]()),
    masks=(MaskField(grid=VoxelTokens().grid, cues=frozenset({"occupied"})),),
    figures=figures,
    demo=Demo(recipe="pointmae-tiny"),
    stages={
        "convert": ("Augmenting", "more cores would help; noise, if any, is drawn here too"),
        "mask": ("Drawing masks", "a mask that does not depend on the occupied voxels, such as random, costs less"),
    },
)
