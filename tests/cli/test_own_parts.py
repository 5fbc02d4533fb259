"""The package of docs/own-parts.md brings a part of each kind, which the commands and loaders take by name."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import write_moving_texture

PAGE = (Path(__file__).parents[2] / "docs/own-parts.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
FILES = {head[1]: code for code in BLOCKS if (head := re.match(r"# ownparts/(\w+\.py)\n", code))}
IMPORTS, LOADER = (code for code in BLOCKS if not code.startswith("# ownparts/"))
DATASET, RECIPE = FILES["data.py"], FILES["recipes.py"]


COMMANDS = re.findall(r"^maskstream (.+)$", PAGE, re.MULTILINE)
LOADED = """
batch = next(iter(loader))
loader.close()
print(tuple(batch.video.shape))
assert issubclass(LeftHalf, Augmentation) and issubclass(Solarize, Transform)
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with the package `ownparts`, and raw videos."""
    (tmp_path / "ownparts").mkdir()
    for name, code in FILES.items():
        (tmp_path / "ownparts" / name).write_text(code)
    raw = tmp_path / "data/raw/mine"
    raw.mkdir(parents=True)
    for number in range(4):
        write_moving_texture(raw / f"{'cat' if number % 2 else 'dog'}-{number}.mp4", seed=number, frames=40)
    return tmp_path


def run(own: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Python, run where the package is."""
    path = os.pathsep.join([str(own), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=own,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def maskstream(own: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The command, run where the package is."""
    return run(own, "-m", "maskstream", *words)


def make_shards(own: Path) -> subprocess.CompletedProcess[str]:
    return maskstream(own, *COMMANDS[0].split(), "--workers", 1)


def test_the_package_of_the_page_runs_in_a_loader(own: Path) -> None:
    made = make_shards(own)
    assert made.returncode == 0, made.stderr
    script = own / "script.py"
    script.write_text(f"{IMPORTS}\n{LOADER}\n{LOADED}")
    shown = run(own, script)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == "(2, 4, 64, 64, 3)\n"


@pytest.mark.slow
def test_the_commands_of_the_page_take_its_parts(own: Path) -> None:
    small = {"preview": ["--frames", 4, "--size", 32, "--samples", 1, "--out", "page.html"]}
    small["train"] = ["--steps", 2, "--device", "cpu"]
    assert [command.split()[0] for command in COMMANDS] == ["shards", "preview", "train"]
    for command in COMMANDS:
        done = maskstream(own, *command.split(), *small.get(command.split()[0], []))
        assert done.returncode == 0, done.stderr
    assert "Checkers" in (own / "page.html").read_text()
    wrong = maskstream(own, "preview", "data/shards/mine/train", "--mask", "ownparts.masks:Chequers")
    assert wrong.returncode == 2
    assert "ownparts.masks has no 'Chequers'" in " ".join(wrong.stderr.split())


@pytest.mark.slow
def test_a_run_of_ones_own_recipe_goes_on_unless_its_parts_changed(own: Path) -> None:
    def trained(steps: int) -> subprocess.CompletedProcess[str]:
        words = ["--data", "data/shards/mine/train", "--steps", steps, "--device", "cpu"]
        return maskstream(own, "train", "ownparts.recipes:small", *words)

    assert make_shards(own).returncode == 0
    first = trained(2)
    assert first.returncode == 0, first.stderr
    about = json.loads((own / "runs/small/run.json").read_text())
    data = about["recipe"]["data"]
    assert data["mask"] == {"kind": "ownparts.masks:Checkers", "step": 4}
    assert data["augment"] == {"kind": "ownparts.crops:LeftHalf"}
    assert data["transform"] == {"kind": "ownparts.transforms:Solarize"}
    assert trained(3).returncode == 0
    (own / "ownparts/recipes.py").write_text(RECIPE.replace("mask.step=4", "mask.step=8"))
    again = trained(4)
    assert again.returncode == 1
    assert "mask.step: saved 4, here 8" in " ".join(again.stderr.split())
    (own / "ownparts/recipes.py").write_text(
        RECIPE.replace("ownparts.masks:Checkers", "Tube").replace('"mask.step=4"', "")
    )
    assert "mask: saved ownparts.masks:Checkers(step=4), here Tube(ratio=0.75)" in " ".join(trained(4).stderr.split())
    (own / "ownparts/recipes.py").write_text(RECIPE)
    reported = maskstream(
        own, "report", "runs/small", "--data", "data/shards/mine/train", "--out", "report.html", "--same-split"
    )
    assert reported.returncode == 0, reported.stderr


@pytest.mark.slow
def test_shards_of_a_changed_dataset_are_not_mixed(own: Path) -> None:
    assert make_shards(own).returncode == 0
    (own / "ownparts/data.py").write_text(DATASET.replace('"*.mp4"', '"cat-*.mp4"'))
    again = make_shards(own)
    assert again.returncode == 1
    assert "sources: saved 4, here 2" in " ".join(again.stderr.split())
