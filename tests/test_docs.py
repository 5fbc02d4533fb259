"""The documentation as a site."""

from __future__ import annotations

import importlib
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipelines", "pipelines.masks", "pipelines.flow", "pipelines.augment", "shards", "preprocess", "train")


def names_in(inventory: Path) -> set[str]:
    """The names that a Sphinx inventory lists."""
    header, data = inventory.read_bytes().split(b"zlib.\n", 1)
    assert header.startswith(b"# Sphinx inventory version 2")
    return {line.split(" ", 1)[0] for line in zlib.decompress(data).decode().splitlines()}


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
