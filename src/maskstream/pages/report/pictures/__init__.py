"""Pictures of a model's work for a run's report: a file per kind of recipe, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from ....train.recipes import (
    AudioRecipe,
    DiffusionRecipe,
    EnhanceRecipe,
    GroupRecipe,
    MeshRecipe,
    Recipe,
    SiameseRecipe,
    VideoRecipe,
    VoxelRecipe,
)
from . import audio, audiovisual, audiovisual_denoising, enhance, mesh, points, video, voxels
from .pictures import Pictures

__all__ = ["PICTURES", "Pictures", "pictures_of"]

PICTURES: dict[type[Recipe], Callable[[Any, nn.Module, str | Path, int], Pictures]] = {
    AudioRecipe: audio.report_pictures,
    DiffusionRecipe: audiovisual_denoising.report_pictures,
    EnhanceRecipe: enhance.report_pictures,
    GroupRecipe: points.report_pictures,
    MeshRecipe: mesh.report_pictures,
    SiameseRecipe: audiovisual.report_pictures,
    VideoRecipe: video.report_pictures,
    VoxelRecipe: voxels.report_pictures,
}


def pictures_of(recipe: Recipe, model: nn.Module, data: str | Path, shown: int) -> Pictures:
    """What a trained model, on the CPU in eval mode, makes of `shown` samples of the split at `data`, the same at each
    call. ValueError for a recipe of which no kind has pictures.
    """
    for kind in type(recipe).__mro__:
        if kind in PICTURES:
            return PICTURES[kind](recipe, model, data, shown)
    raise ValueError(f"there are no pictures for a {type(recipe).__name__}; add its function to train/pictures")
