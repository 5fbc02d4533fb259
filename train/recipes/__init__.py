"""Recipes by name: functions that return one frozen config each. A new one is a function, and a line in `RECIPES`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...shards.format.dataset import read_dataset_json
from ...shards.named import named
from ..core.recipe import Recipe
from .audio import audiomae_base, audiomae_tiny
from .audiovisual import avsiam_base, avsiam_tiny, diffmavil_base, diffmavil_tiny
from .enhance import ca_dense_unet_tiny
from .mesh import meshmask_small, meshmask_small_next, meshmask_tiny, meshmask_tiny_next
from .points import fastdit3d_small, fastdit3d_tiny, pointmae_small, pointmae_tiny
from .video import (
    mgmae_small,
    mgmae_tiny,
    videomae2_small,
    videomae2_tiny,
    videomae_small,
    videomae_tiny,
)

RECIPES: dict[str, Callable[[], Recipe[Any]]] = {
    "videomae-small": videomae_small,
    "videomae-tiny": videomae_tiny,
    "mgmae-small": mgmae_small,
    "mgmae-tiny": mgmae_tiny,
    "videomae2-small": videomae2_small,
    "videomae2-tiny": videomae2_tiny,
    "audiomae-base": audiomae_base,
    "audiomae-tiny": audiomae_tiny,
    "ca-dense-unet-tiny": ca_dense_unet_tiny,
    "avsiam-base": avsiam_base,
    "avsiam-tiny": avsiam_tiny,
    "diffmavil-base": diffmavil_base,
    "diffmavil-tiny": diffmavil_tiny,
    "fastdit3d-small": fastdit3d_small,
    "fastdit3d-tiny": fastdit3d_tiny,
    "pointmae-small": pointmae_small,
    "pointmae-tiny": pointmae_tiny,
    "meshmask-small": meshmask_small,
    "meshmask-small-next": meshmask_small_next,
    "meshmask-tiny": meshmask_tiny,
    "meshmask-tiny-next": meshmask_tiny_next,
}


def named_recipe(name: str) -> Recipe[Any]:
    """The recipe of that name, or that the function `package.module:name` returns; ValueError for another name."""
    return named(name, RECIPES, "recipe")()


def check_modality(recipe: Recipe[Any], data: str | Path) -> None:
    """ValueError where the split in the folder `data` is not of the recipe's modality; ShardError where it is none."""
    found = read_dataset_json(data)["modality"]
    if found != recipe.data.modality:
        fitting = ", ".join(name for name, make in RECIPES.items() if make().data.modality == found)
        raise ValueError(
            f"the recipe {recipe.name!r} is for {recipe.data.modality}, but {data} holds {found}; recipes for that are "
            f"{fitting or 'none'}"
        )


__all__ = [
    "RECIPES",
    "Recipe",
    "check_modality",
    "named_recipe",
]
