"""Pictures of a model's work for a run's report: a file per kind of model, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from ....pipelines.modalities.data import DataConfig
from ....train.core.model import ModelConfig
from ....train.core.recipe import Recipe
from ....train.models import (
    AudioVisualDiffusionConfig,
    DenseUNetConfig,
    MeshNetworkConfig,
    PointAutoencoderConfig,
    SiameseConfig,
    SpectrogramAutoencoderConfig,
    VideoAutoencoderConfig,
    VoxelDiffusionConfig,
)
from . import audio, audiovisual, audiovisual_denoising, enhance, mesh, points, video, voxels
from .pictures import Pictures

__all__ = ["PICTURES", "Pictures", "pictures_of"]

PICTURES: dict[type[ModelConfig[Any]], Callable[[Any, nn.Module, str | Path, int], Pictures]] = {
    AudioVisualDiffusionConfig: audiovisual_denoising.report_pictures,
    DenseUNetConfig: enhance.report_pictures,
    MeshNetworkConfig: mesh.report_pictures,
    PointAutoencoderConfig: points.report_pictures,
    SiameseConfig: audiovisual.report_pictures,
    SpectrogramAutoencoderConfig: audio.report_pictures,
    VideoAutoencoderConfig: video.report_pictures,
    VoxelDiffusionConfig: voxels.report_pictures,
}


def pictures_of(recipe: Recipe[Any], model: nn.Module, data: str | Path, shown: int) -> Pictures:
    """What a trained model, on the CPU in eval mode, makes of `shown` samples of the split at `data`, the same at each
    call. ValueError for a recipe whose kind of model has no pictures.
    """
    config: DataConfig[Any] = recipe.data
    for kind in type(recipe.model).__mro__:
        if kind in PICTURES:
            return PICTURES[kind](config, model, data, shown)
    raise ValueError(f"there are no pictures of a {type(recipe.model).__name__}; add its function to PICTURES")
