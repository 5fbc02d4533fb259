"""Recipes by name: functions that return one frozen config each.

A new recipe is a function and a line in `RECIPES` of its paper's recipe.py; the folders of all papers are read here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from maskstream.shards.named import named

from .core.recipe import Recipe
from .papers import tables

RECIPES: dict[str, Callable[[], Recipe[Any]]] = {
    name: make for table in tables("recipe", "RECIPES") for name, make in table.items()
}
"""The recipes of all papers by name."""


def named_recipe(name: str) -> Recipe[Any]:
    """The recipe of a name in RECIPES, or the one that a function `package.module:name` returns.

    ValueError for an unknown name.
    """
    return named(name, RECIPES, "recipe")()


__all__ = [
    "RECIPES",
    "Recipe",
    "named_recipe",
]
