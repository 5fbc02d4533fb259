"""A folder for each paper: model.py, recipe.py and evaluate.py.

A new paper is a folder; no table names it. `RECIPES` of its recipe.py and `EVALUATIONS` of its evaluate.py are found.
Papers import `core`, `nn` and `evaluate`, and no other paper.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any


def tables(file: str, name: str) -> Iterator[Mapping[Any, Any]]:
    """The table `name` of the module `file` of each paper that has one."""
    for paper in iter_modules(__path__):
        module = f"{__name__}.{paper.name}.{file}"
        if find_spec(module) is not None:
            yield getattr(import_module(module), name, {})
