"""The scripts of the first hour, each from raw data as held to three steps; services/ tests one more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .running import EXAMPLES, losses, run, samples

SCRIPTS = sorted((EXAMPLES / "first_hour").glob("*.sh"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "train"),
    [("video", 3), ("sound", 3), ("simulation", 3)],
)
def test_from_a_stand_in_to_three_steps(name: str, train: int, tmp_path: Path) -> None:
    said = run(EXAMPLES / f"first_hour/{name}.sh", folder=tmp_path)
    out = tmp_path / "data/first_hour" / name
    assert samples(out / "shards/train") == train
    assert len(losses(out / "run")) == 3
    if name == "sound":
        assert "classes of each [" in said


@pytest.mark.slow
def test_from_your_own_episodes_to_three_steps(tmp_path: Path) -> None:
    run(sys.executable, EXAMPLES / "first_hour/make_raw.py", "lerobot", "mine", folder=tmp_path)
    said = run(EXAMPLES / "first_hour/robotics.sh", folder=tmp_path, RAW="mine", OUT="out")
    assert "video (4, 8, 64, 64, 3) actions (4, 8, 2)" in said
    assert samples(tmp_path / "out/shards/train") == 8
    assert len(losses(tmp_path / "out/run")) == 3
    assert not (tmp_path / "out/raw").exists()


def test_no_script_has_what_shellcheck_warns_of() -> None:
    checked = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), *SCRIPTS], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
    assert len(SCRIPTS) == 5
