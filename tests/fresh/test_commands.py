"""What `tests/fresh/commands.py` runs on a machine that has nothing is what the pages say, all of it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def listed(*pages):
    command = [sys.executable, ROOT / "tests/fresh/commands.py", "--list", *pages]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_command_of_the_readme_is_run_as_it_stands():
    lines = listed("readme").splitlines()
    wanted = (
        "make setup && . .venv/bin/activate",
        "maskstream shards sample",
        "make demo",
        "maskstream preview data/shards/sample/train",
        "maskstream shards moving-fashion-mnist",
        "maskstream train mgmae-tiny --data data/shards/moving-fashion-mnist/train --out runs/mgmae "
        "--set schedule.steps=1450 --set clip.stride=2 --set data.colour=null --set 'data.augment.scale=[0.6,1.0]' "
        "--steps 20",
    )
    assert [line for line in lines if line in wanted] == list(wanted)
    assert "for batch in loader:" in lines
    assert listed("readme", "--short").splitlines() == [line for line in lines if line != "make demo"]


def test_what_ci_runs_is_there():
    words = re.findall(r"tests/\S+", (ROOT / ".ci/fresh").read_text())
    paths = subprocess.run(["bash", "-c", f"printf '%s\n' {' '.join(words)}"], capture_output=True, text=True).stdout
    assert len(paths.split()) > 8
    assert not [path for path in paths.split() if not (ROOT / path).exists()]


def test_all_pages_are_the_default():
    assert listed() == "".join(listed(page) for page in ("readme", "first-hour", "examples"))


@pytest.mark.parametrize("room", ["first_hour", "trainers", "readers", "notebooks"])
def test_every_example_is_run(room):
    said = listed("first-hour", "examples")
    kind = "*.sh" if room == "first_hour" else "*.py"
    parts = {"video_mae.py"}
    scripts = [path for path in (ROOT / "examples" / room).glob(kind) if path.name not in parts]
    assert scripts
    for script in scripts:
        assert f"examples/{room}/{script.name}" in said


def test_what_the_heads_of_the_files_ask_for_is_installed_before():
    lines = listed("first-hour", "examples").splitlines()
    at = {name: next(i for i, line in enumerate(lines) if name in line) for name in ("simulation.sh", "spdl_tars.py")}
    assert "python -m pip install -q -e '.[meshes]' tensorboard" in lines[: at["simulation.sh"]]
    assert any("recommends ffmpeg" in line for line in lines[: at["spdl_tars.py"]])
    assert "python -m pip install -q spdl spdl-io pyarrow" in lines[: at["spdl_tars.py"]]
