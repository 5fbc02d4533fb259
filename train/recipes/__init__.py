"""Recipes by name: functions that return one frozen config each.

A new recipe is a function and a line in `RECIPES` of its file. All files of this folder are imported here, so a new
modality adds a file and changes none.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from ...shards.format.dataset import read_dataset_json
from ...shards.named import named
from ..core.recipe import Recipe
from ..papers import tables

_FILES = (import_module(f".{file.name}", __name__).RECIPES for file in iter_modules(__path__))
RECIPES: dict[str, Callable[[], Recipe[Any]]] = {
    name: make for table in (*_FILES, *tables("recipe", "RECIPES")) for name, make in table.items()
}
"""The recipes of all files by name."""


def named_recipe(name: str) -> Recipe[Any]:
    """The recipe of a name in RECIPES, or the one that a function `package.module:name` returns.

    ValueError for an unknown name.
    """
    return named(name, RECIPES, "recipe")()


def check_modality(recipe: Recipe[Any], data: str | Path) -> None:
    """Raises ValueError if the split in the folder `data` is of another modality, ShardError if it is no split."""
    found = read_dataset_json(data)["modality"]
    if found != recipe.data.modality:
        fitting = ", ".join(name for name, make in RECIPES.items() if make().data.modality == found)
        raise ValueError(
            f"the recipe {recipe.name!r} is for {recipe.data.modality}, but {data} holds {found}; recipes for {found}: "
            f"{fitting or 'none'}"
        )


__all__ = [
    "RECIPES",
    "Recipe",
    "check_modality",
    "named_recipe",
]
