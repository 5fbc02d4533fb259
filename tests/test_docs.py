"""The documentation as a site."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest
from torch import Tensor

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipelines", "pipelines.masks", "pipelines.flow", "pipelines.augment", "shards", "preprocess", "train")


def names_in(inventory: Path) -> set[str]:
    """The names that a Sphinx inventory lists."""
    header, data = inventory.read_bytes().split(b"zlib.\n", 1)
    assert header.startswith(b"# Sphinx inventory version 2")
    return {line.split(" ", 1)[0] for line in zlib.decompress(data).decode().splitlines()}


SHAPE = re.compile(r"\((?:\.\.\.|[\w*+/^. -]+|\[\w+),[\w*+/^., \[\]-]*\)")
"""(B, T, H, W, C), (n,), (..., n), (B, [T,] H, W, 3)."""
ARRAY = re.compile(r"\b(?:Tensor|NDArray|ndarray)\b")


def described(thing: object, name: str) -> Iterator[tuple[str, str, list[str]]]:
    """A function, or a class and its public methods and properties: name, docstring, annotations."""
    if isinstance(thing, FunctionType):
        yield name, inspect.getdoc(thing) or "", list(map(str, thing.__annotations__.values()))
    elif isinstance(thing, type):
        fields = {f: str(a) for f, a in vars(thing).get("__annotations__", {}).items()}
        yield name, inspect.getdoc(thing) or "", [a for f, a in fields.items() if f[0] != "_" and "ClassVar" not in a]
        for own, member in vars(thing).items():
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if isinstance(function, FunctionType) and (own == "__call__" or own[0] != "_"):
                doc = inspect.getdoc(getattr(thing, own)) or ""  # an overriding method has the doc of its base
                yield f"{name}.{own}", doc, list(map(str, function.__annotations__.values()))


def test_what_takes_or_returns_arrays_says_their_shapes() -> None:
    """Of every public name: a docstring names a shape where an annotation names a tensor or an array."""
    modules = [importlib.import_module(f"maskstream.{package}") for package in PACKAGES]
    found = [one for module in modules for name in module.__all__ for one in described(getattr(module, name), name)]
    arrays = [(name, doc) for name, doc, annotations in found if any(ARRAY.search(one) for one in annotations)]
    lacking = [name for name, doc in arrays if not SHAPE.search(doc)]
    assert not lacking, f"no shape such as (B, T, H, W, C) in the docstrings of {', '.join(lacking)}"
    assert len(arrays) > 90


def test_the_shapes_are_looked_for() -> None:
    def good(x: Tensor) -> None:
        """Takes frames uint8 (B, T, H, W, 3)."""

    def bad(x: Tensor) -> None:
        """Takes frames (all of them)."""

    assert [SHAPE.search(doc) is None for f in (good, bad) for _, doc, _ in described(f, "f")] == [False, True]


@pytest.mark.slow
def test_the_site_has_every_public_name_and_no_broken_link(tmp_path: Path) -> None:
    """A broken link or anchor ends the strict build."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = names_in(tmp_path / "site/objects.inv")
    for package in PACKAGES:
        module = importlib.import_module(f"maskstream.{package}")
        names = [name for name in module.__all__ if not isinstance(getattr(module, name), type(importlib))]
        missing = [name for name in names if f"maskstream.{package}.{name}" not in found]
        assert not missing, f"{package} shows no {missing}"
