"""A folder for each paper: model.py, recipe.py and evaluate.py.

A new paper is a folder; no table names it. A recipe is a function in recipe.py without arguments that returns a Recipe
with the function's name, in dashes; `EVALUATIONS` in evaluate.py is found too. Papers import `core`, `nn` and
`evaluate`, and no other paper. Papers that share a model share a folder, with a file named after each paper instead of
recipe.py: jepa and videomae.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.resources import files
from inspect import isfunction
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

if TYPE_CHECKING:
    from maskstream.train.core.recipe import Recipe

FAMILIES = ("ajepa", "ijepa", "lejepa", "maest", "mgmae", "salt", "videomae", "videomae2", "vjepa", "vjepa2", "vjepa21")
"""Files of papers that share a folder with others."""


def tables(file: str, name: str) -> Iterator[Mapping[Any, Any]]:
    """Yield the table `name` of the module `file` of each paper that has one.

    Args:
        file: Name of the module in each paper's package.
        name: Name of the table.
    """
    for module in _import_modules(file):
        yield getattr(module, name, {})


def list_recipes() -> "dict[str, Callable[[], Recipe[Any]]]":
    """Return the recipes of all papers by name."""
    from maskstream.train.core.recipe import Recipe  # it imports torch, and the options of papers do not

    found: dict[str, Callable[[], Recipe[Any]]] = {}
    for module in (module for file in ("recipe", *FAMILIES) for module in _import_modules(file)):
        for name, made in vars(module).items():
            if isfunction(made) and made.__module__ == module.__name__:
                hints: dict[str, Any] = get_type_hints(made)
                if [*hints] == ["return"] and get_origin(hints["return"]) is Recipe:
                    found[name.replace("_", "-")] = made
    return found


def _import_modules(file: str) -> Iterator[ModuleType]:
    for paper in sorted(folder.name for folder in files(__name__).iterdir() if folder.joinpath(f"{file}.py").is_file()):
        yield import_module(f"{__name__}.{paper}.{file}")
