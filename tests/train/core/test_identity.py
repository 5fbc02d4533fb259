"""A run that was killed goes on with the settings it had, and with no others."""

import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from maskstream.shards.config import with_set
from maskstream.shards.errors import ResumeError
from maskstream.train import Trainer, train
from maskstream.train.core.metrics import read_metrics
from maskstream.train.recipes import named_recipe

from .until_killed import SMALL

SCRIPT = Path(__file__).with_name("until_killed.py")
OWN_MASK = """
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from maskstream.pipelines.masks import Mask

@dataclass(frozen=True, kw_only=True, slots=True)
class Checkers(Mask):
    step: int = 2

    def hide(self, grid, draw):
        return np.arange(grid.size) % self.step > 0
"""


def started(folder: Path, data: Path, steps: int, *assignments: str) -> subprocess.Popen[str]:
    """The training as a process of its own, which imports what lies in `folder` too."""
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, SCRIPT, data, folder / "run", str(steps), *assignments],
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(folder: Path, data: Path, *assignments: str) -> int:
    """Kills a training that has saved a step or more; returns how many steps it had saved."""
    process = started(folder, data, 1_000_000, *assignments)
    checkpoints, end = folder / "run/checkpoints", time.monotonic() + 300
    while not any(checkpoints.glob("step-*")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    running = process.poll() is None
    process.kill()
    _, errors = process.communicate()
    assert running, errors
    return max(int(path.name.removeprefix("step-")) for path in checkpoints.glob("step-*"))


@pytest.fixture(scope="module")
def run(eleven: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has saved a step of many."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    recipe = with_set(named_recipe("videomae-tiny"), SMALL)
    with closing(recipe.loader(eleven, steps=9, device="cpu", threads=1)) as loader:
        Trainer(recipe, loader, out, steps=9, save_every=1, device="cpu", progress=False).run(until=1)
    return out


@pytest.mark.parametrize(
    ("assignments", "says"),
    [
        (["mask.ratio=0.5"], r"mask\.ratio: saved 0\.75, here 0\.5"),
        (["mask.kind=Random"], r"mask: saved Tube\(ratio=0\.75\), here Random\(\)"),
        (["clip.stride=2"], r"clip\.stride: saved 4, here 2"),
        (["augment.kind=MultiScaleCrop"], r"augment: saved RandomResizedCrop\(.*\), here MultiScaleCrop\("),
        (["augment.flip=0.0"], r"augment\.flip: saved 0\.5, here 0\.0"),
        (["views=2"], r"views: saved 4, here 2"),
        (["flow=dis"], r"flow: saved auto, here dis"),
    ],
)
def test_another_choice_is_refused_by_name(run: Path, eleven: Path, assignments: list[str], says: str) -> None:
    recipe = with_set(named_recipe("videomae-tiny"), [*SMALL, *assignments])
    with pytest.raises(ResumeError, match=says):
        train(recipe, eleven, run, steps=9, device="cpu", threads=1, progress=False)


@pytest.mark.slow
def test_a_new_field_with_a_default_resumes_and_a_new_version_does_not(eleven: Path, tmp_path: Path) -> None:
    own = tmp_path / "own_mask_of_a_test.py"
    own.write_text(OWN_MASK)
    mask = "mask.kind=own_mask_of_a_test:Checkers"
    step = killed(tmp_path, eleven, mask)
    own.write_text(OWN_MASK.replace("    step: int = 2", "    step: int = 2\n    shift: int = 0"))
    output, errors = started(tmp_path, eleven, step + 2, mask).communicate(timeout=300)
    assert f"ended at step {step + 2}" in output, errors
    assert [m.step for m in read_metrics(tmp_path / "run/metrics.jsonl")] == list(range(1, step + 3))
    output, errors = started(tmp_path, eleven, step + 4, mask, "shift=1").communicate(timeout=300)
    assert "mask.shift: saved 0, here 1" in errors
    own.write_text(OWN_MASK.replace("    step: int = 2", "    version: ClassVar[int] = 2\n    step: int = 4"))
    output, errors = started(tmp_path, eleven, step + 4, mask).communicate(timeout=300)
    assert "mask: saved by version 1 of own_mask_of_a_test:Checkers, here version 2" in errors
