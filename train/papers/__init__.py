"""A folder for each paper: model.py, recipe.py and evaluate.py.

A new paper is a folder; no table names it. `RECIPES` of its recipe.py and `EVALUATIONS` of its evaluate.py are found.
Papers import `core`, `nn` and `evaluate`, and no other paper.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.resources import files
from typing import Any


def tables(file: str, name: str) -> Iterator[Mapping[Any, Any]]:
    """The table `name` of the module `file` of each paper that has one."""
    for paper in sorted(folder.name for folder in files(__name__).iterdir() if folder.joinpath(f"{file}.py").is_file()):
        yield getattr(import_module(f"{__name__}.{paper}.{file}"), name, {})
