"""A package outside the repository brings a dataset, a mask and a recipe, which the commands take by name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import write_moving_texture

DATASET = '''
from maskstream.preprocess.source import Source
from maskstream.preprocess.datasets import Dataset

def mine(root):
    """Files called by their class and number, such as cat-1.mp4."""
    paths = sorted(root.glob("*.mp4"))
    names = tuple(sorted({path.stem.split("-")[0] for path in paths}))
    sources = [Source(id=path.stem, path=path, label=names.index(path.stem.split("-")[0])) for path in paths]
    return Dataset(name="mine", label_names=names, splits={"train": sources})
'''
MASK = '''
from dataclasses import dataclass

import numpy as np

from maskstream.pipelines.masks import Mask

@dataclass(frozen=True, kw_only=True, slots=True)
class Checkers(Mask):
    """Every `step`-th token stays visible."""

    step: int = 2

    def hide(self, grid, draw):
        return np.arange(grid.size) % self.step > 0
'''

RECIPE = """
from maskstream.shards.config import with_set
from maskstream.train.recipes import named_recipe

SMALL = [
    *("clip.frames=4", "clip.size=32", "patch=8", "batch_size=2", "name=small"),
    *("model.width=16", "model.depth=1", "model.heads=2"),
    *("model.decoder_width=16", "model.decoder_depth=1", "model.decoder_heads=2"),
]

def small():
    return with_set(named_recipe("videomae-tiny"), [*SMALL, "mask.kind=ownparts.masks:Checkers", "mask.step=4"])
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with the package `ownparts`, and raw videos."""
    package = tmp_path / "ownparts"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "data.py").write_text(DATASET)
    (package / "masks.py").write_text(MASK)
    (package / "recipes.py").write_text(RECIPE)
    (tmp_path / "raw").mkdir()
    for number in range(4):
        write_moving_texture(tmp_path / f"raw/{'cat' if number % 2 else 'dog'}-{number}.mp4", seed=number, frames=40)
    return tmp_path


def maskstream(own: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The command, run where the package is."""
    path = os.pathsep.join([str(own), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "maskstream", *map(str, words)],
        cwd=own,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def make_shards(own: Path) -> subprocess.CompletedProcess[str]:
    return maskstream(own, "shards", "ownparts.data:mine", "--root", "raw", "--out", "shards", "--workers", 1)


@pytest.mark.slow
def test_the_commands_take_ones_own_parts(own: Path) -> None:
    made = make_shards(own)
    assert made.returncode == 0, made.stderr
    small = ["--frames", 4, "--size", 32, "--samples", 1, "--out", "page.html"]
    shown = maskstream(own, "preview", "shards/train", "--mask", "ownparts.masks:Checkers", *small)
    assert shown.returncode == 0, shown.stderr
    assert "Checkers" in (own / "page.html").read_text()
    wrong = maskstream(own, "preview", "shards/train", "--mask", "ownparts.masks:Chequers", *small)
    assert wrong.returncode == 2
    assert "ownparts.masks has no 'Chequers'" in " ".join(wrong.stderr.split())


@pytest.mark.slow
def test_a_run_of_ones_own_recipe_goes_on_unless_its_parts_changed(own: Path) -> None:
    def trained(steps: int) -> subprocess.CompletedProcess[str]:
        words = ["--data", "shards/train", "--steps", steps, "--device", "cpu"]
        return maskstream(own, "train", "ownparts.recipes:small", *words)

    assert make_shards(own).returncode == 0
    first = trained(2)
    assert first.returncode == 0, first.stderr
    about = json.loads((own / "runs/small/run.json").read_text())
    assert {"kind": "ownparts.masks:Checkers", "step": 4} in (
        about["recipe"].get("mask"),
        about["recipe"].get("data", {}).get("mask"),
    )
    assert trained(3).returncode == 0
    (own / "ownparts/recipes.py").write_text(RECIPE.replace("mask.step=4", "mask.step=8"))
    again = trained(4)
    assert again.returncode == 1
    assert "mask.step: saved 4, here 8" in " ".join(again.stderr.split())
    (own / "ownparts/recipes.py").write_text(
        RECIPE.replace("ownparts.masks:Checkers", "Tube").replace(', "mask.step=4"', "")
    )
    assert "mask: saved ownparts.masks:Checkers(step=4), here Tube(ratio=0.75)" in " ".join(trained(4).stderr.split())
    (own / "ownparts/recipes.py").write_text(RECIPE)
    reported = maskstream(own, "report", "runs/small", "--data", "shards/train", "--out", "report.html", "--same-split")
    assert reported.returncode == 0, reported.stderr


@pytest.mark.slow
def test_shards_of_a_changed_dataset_are_not_mixed(own: Path) -> None:
    assert make_shards(own).returncode == 0
    (own / "ownparts/data.py").write_text(DATASET.replace('"*.mp4"', '"cat-*.mp4"'))
    again = make_shards(own)
    assert again.returncode == 1
    assert "sources: saved 4, here 2" in " ".join(again.stderr.split())
